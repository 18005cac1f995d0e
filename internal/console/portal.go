package console

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/directory"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
	ws "github.com/sealdesk/sealdesk/internal/workspaces"
)

// portalUser is a directory user at the portal.
type portalUser struct {
	Account, Region, DirectoryID string
	UserName, SID                string
}

func (u *portalUser) sidDirectoryID() string { return "[" + u.SID + "]@[" + u.DirectoryID + "]" }

// find is the directory that a registration code, the domain name of a connection alias,
// a directory ID or its alias names.
func (c *Console) find(tx *store.Tx, name string) (directory.Directory, bool) {
	name = strings.TrimSpace(name)
	if _, _, id, ok := c.cfg.Desktops.ByRegistrationCode(tx, strings.ToUpper(name)); ok {
		name = id
	}
	return c.cfg.Directories.Find(tx, name)
}

// mayEnter checks all that can change while a user is signed in: the user is
// enabled and the same, the address is allowed.
func (c *Console) mayEnter(tx *store.Tx, u *portalUser, from netip.Addr) error {
	d, ok := c.cfg.Directories.User(tx, u.Account, u.Region, u.DirectoryID, u.UserName)
	if !ok || d.SID != u.SID {
		return errors.New("the user is no longer in the directory")
	}
	if !d.Enabled {
		return errors.New("the user was disabled")
	}
	return c.cfg.Desktops.WebAccess(tx, u.Account, u.Region, u.DirectoryID, from)
}

type portalIn struct {
	UserName  string `json:"userName"`
	Directory string `json:"directory"`
	Name      string `json:"name"`
}

// codePatience is how long a sign-in waits for RADIUS servers, whatever their
// directory's settings add up to.
const codePatience = 55 * time.Second

// portalSignIn signs a directory user in. A directory with a second factor asks for
// the code before it looks at the password, so that nobody learns from the question
// whether the password was right.
func (c *Console) portalSignIn(ctx context.Context, r *request) (any, error) {
	var in struct {
		Directory string `json:"directory"`
		UserName  string `json:"userName"`
		Password  string `json:"password"`
		Code      string `json:"code"`
	}
	if err := r.in(&in); err != nil {
		return nil, err
	}
	if len(in.Directory) > 255 || len(in.UserName) > 256 || len(in.Password) > 256 || len(in.Code) > 128 {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "A field is longer than it can be.")
	}
	who := "portal/" + strings.ToLower(in.Directory+"/"+in.UserName)
	if !c.limit.allowed(r.addr.String(), who) {
		return nil, errTooMany
	}
	tx := c.cfg.Store.Snapshot()
	d, found := c.find(tx, in.Directory)
	label, second := c.cfg.Directories.SecondFactor(tx, d.Account, d.Region, d.ID)
	if second && in.Code == "" {
		p := refuse(http.StatusUnauthorized, "MFARequired", "Enter the code of your token or telephone as well.")
		p.Label = label
		return nil, p
	}
	what := "The registration code, the user name or the password is not right."
	if second {
		what = "The registration code, the user name, the password or the code is not right."
	}
	wrong := refuse(http.StatusForbidden, "AuthFailure", what)
	id := d.ID
	if !found {
		id = "d-0000000000" // takes as long as one that exists
	}
	select {
	case c.hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	u, err := c.cfg.Directories.Authenticate(ctx, id, in.UserName, in.Password)
	<-c.hashing
	if err == nil && second {
		cctx, cancel := context.WithTimeout(ctx, codePatience)
		err = c.cfg.Directories.CheckCode(cctx, u, in.Code)
		cancel()
	}
	var why *problem
	switch {
	case errors.Is(err, directory.ErrCredentials) || errors.Is(err, directory.ErrCode) || err == nil && !found:
		c.limit.failed(r.addr.String(), who)
		why = wrong
	case errors.Is(err, directory.ErrLocked):
		why = refuse(http.StatusTooManyRequests, "UserLocked", "Too many wrong passwords for this user. Wait a while, or ask your administrator.")
	case errors.Is(err, directory.ErrDisabled):
		why = refuse(http.StatusForbidden, "UserDisabled", "This user is disabled. Ask your administrator.")
	case errors.Is(err, directory.ErrNoSecondFactor):
		why = refuse(http.StatusServiceUnavailable, "MFAUnavailable", "Your code cannot be checked now: the directory's RADIUS servers do not answer. Ask your administrator.")
	case err != nil:
		return nil, err
	}
	pu := &portalUser{Account: d.Account, Region: d.Region, DirectoryID: d.ID, UserName: u.SAMAccountName, SID: u.SID}
	if why == nil {
		if err := c.cfg.Desktops.WebAccess(tx, d.Account, d.Region, d.ID, r.addr); err != nil {
			why = refuse(http.StatusForbidden, "AccessDenied", sentence(err)+" Ask your administrator.")
		}
	}
	if why != nil {
		if found {
			if aerr := c.event(ctx, r, pu, "PortalSignIn", "", why.Message); aerr != nil {
				return nil, aerr
			}
		}
		return nil, why
	}
	c.limit.succeeded(r.addr.String(), who)
	if err := c.event(ctx, r, pu, "PortalSignIn", "", ""); err != nil {
		return nil, err
	}
	now := c.cfg.Clock.Now()
	token, key := newToken()
	s := &session{ID: ids.UUID(), User: pu, Created: now, LastUsed: now, Expires: now.Add(portalLife), SourceIP: r.addr.String(), UserAgent: clip(r.UserAgent(), 256)}
	if err := c.cfg.Store.Update(ctx, func(tx *store.Tx) error { return c.sessions.Put(tx, key, s) }); err != nil {
		return nil, err
	}
	setCookie(r, portalCookie, "/portal/", token, portalLife)
	return &portalIn{pu.UserName, d.ID, d.Name}, nil
}

// sentence makes an error a sentence for people.
func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func (c *Console) portalSignOut(ctx context.Context, r *request) (any, error) {
	key, s, err := c.current(r, portalCookie)
	setCookie(r, portalCookie, "/portal/", "", 0)
	if err != nil {
		return nil, nil
	}
	return nil, c.revoke(ctx, key, s.ID) // running connections see it and end
}

// portalUser is the user of the request's session, who may still enter.
func (c *Console) portalUser(r *request) (key string, u *portalUser, err error) {
	key, s, err := c.current(r, portalCookie)
	if err != nil {
		return "", nil, err
	}
	if err := c.mayEnter(c.cfg.Store.Snapshot(), s.User, r.addr); err != nil {
		return "", nil, refuse(http.StatusForbidden, "AccessDenied", sentence(err)+" Ask your administrator.")
	}
	return key, s.User, nil
}

type desktop struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	State        string     `json:"state"`
	Compute      string     `json:"compute"`
	RunningMode  string     `json:"runningMode"`
	Connected    bool       `json:"connected"`
	LastUsed     *time.Time `json:"lastUsed,omitempty"`
	Encrypted    bool       `json:"encrypted"`
	ErrorMessage string     `json:"errorMessage,omitempty"`
	MayStart     bool       `json:"mayStart"`
	MayReboot    bool       `json:"mayReboot"`
}

// portalDesktops lists the desktops of the user who is signed in.
func (c *Console) portalDesktops(ctx context.Context, r *request) (any, error) {
	_, u, err := c.portalUser(r)
	if err != nil {
		return nil, err
	}
	tx := c.cfg.Store.Snapshot()
	d, _ := c.cfg.Directories.Find(tx, u.DirectoryID)
	out := struct {
		User      string    `json:"user"`
		Directory string    `json:"directory"`
		Desktops  []desktop `json:"desktops"`
	}{u.UserName, d.Name, []desktop{}}
	reboot := c.cfg.Desktops.SelfServiceAllowed(tx, u.Account, u.Region, u.DirectoryID, "RestartWorkspace")
	var wids []string
	for _, w := range c.cfg.Desktops.OfUser(tx, u.Account, u.Region, u.DirectoryID, u.SID) {
		x := desktop{ID: aws.ToString(w.WorkspaceId), Name: aws.ToString(w.ComputerName), State: string(w.State), Encrypted: aws.ToBool(w.RootVolumeEncryptionEnabled) || aws.ToBool(w.UserVolumeEncryptionEnabled),
			ErrorMessage: aws.ToString(w.ErrorMessage), MayReboot: reboot && w.State == wstypes.WorkspaceStateAvailable}
		if p := w.WorkspaceProperties; p != nil {
			x.Compute, x.RunningMode = string(p.ComputeTypeName), string(p.RunningMode)
		}
		x.MayStart = w.State == wstypes.WorkspaceStateStopped
		out.Desktops = append(out.Desktops, x)
		wids = append(wids, x.ID)
	}
	if len(wids) > 0 {
		call := api.ServiceCall("workspaces", u.Account, u.Region, c.cfg.Clock.Now())
		st, err := api.Do[workspaces.DescribeWorkspacesConnectionStatusOutput](ctx, c.cfg.Caller, call, "workspaces", "DescribeWorkspacesConnectionStatus",
			&workspaces.DescribeWorkspacesConnectionStatusInput{WorkspaceIds: wids})
		if err != nil {
			return nil, err
		}
		for _, x := range st.WorkspacesConnectionStatus {
			for i := range out.Desktops {
				if out.Desktops[i].ID == aws.ToString(x.WorkspaceId) {
					out.Desktops[i].Connected = x.ConnectionState == wstypes.ConnectionStateConnected
					out.Desktops[i].LastUsed = x.LastKnownUserConnectionTimestamp
				}
			}
		}
	}
	return out, nil
}

// own finds one of the user's own desktops.
func (c *Console) ownDesktop(u *portalUser, id string) (*wstypes.Workspace, error) {
	for _, w := range c.cfg.Desktops.OfUser(c.cfg.Store.Snapshot(), u.Account, u.Region, u.DirectoryID, u.SID) {
		if aws.ToString(w.WorkspaceId) == id {
			return w, nil
		}
	}
	return nil, refuse(http.StatusNotFound, "NoSuchDesktop", "You have no such desktop.")
}

// portalAction starts or reboots the user's desktop. It runs as the WorkSpaces
// service; the record of the event says for which user.
func (c *Console) portalAction(ctx context.Context, r *request) (any, error) {
	_, u, err := c.portalUser(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		WorkspaceID string `json:"workspaceId"`
		Action      string `json:"action"`
	}
	if err := r.in(&in); err != nil {
		return nil, err
	}
	if _, err := c.ownDesktop(u, in.WorkspaceID); err != nil {
		return nil, err
	}
	call := api.ServiceCall("workspaces", u.Account, u.Region, c.cfg.Clock.Now())
	var failed []wstypes.FailedWorkspaceChangeRequest
	switch in.Action {
	case "start":
		if err := c.event(ctx, r, u, "PortalStartDesktop", in.WorkspaceID, ""); err != nil {
			return nil, err
		}
		out, err := api.Do[workspaces.StartWorkspacesOutput](ctx, c.cfg.Caller, call, "workspaces", "StartWorkspaces",
			&workspaces.StartWorkspacesInput{StartWorkspaceRequests: []wstypes.StartRequest{{WorkspaceId: &in.WorkspaceID}}})
		if err != nil {
			return nil, apiProblem(err)
		}
		failed = out.FailedRequests
	case "reboot":
		if !c.cfg.Desktops.SelfServiceAllowed(c.cfg.Store.Snapshot(), u.Account, u.Region, u.DirectoryID, "RestartWorkspace") {
			return nil, refuse(http.StatusForbidden, "AccessDenied", "Your directory does not let users reboot their desktops. Ask your administrator.")
		}
		if err := c.event(ctx, r, u, "PortalRebootDesktop", in.WorkspaceID, ""); err != nil {
			return nil, err
		}
		out, err := api.Do[workspaces.RebootWorkspacesOutput](ctx, c.cfg.Caller, call, "workspaces", "RebootWorkspaces",
			&workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []wstypes.RebootRequest{{WorkspaceId: &in.WorkspaceID}}})
		if err != nil {
			return nil, apiProblem(err)
		}
		failed = out.FailedRequests
	default:
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "The action is start or reboot.")
	}
	if len(failed) > 0 {
		return nil, refuse(http.StatusConflict, aws.ToString(failed[0].ErrorCode), aws.ToString(failed[0].ErrorMessage))
	}
	return nil, nil
}

// apiProblem shows an AWS error to the browser.
func apiProblem(err error) error {
	var apiErr smithy.APIError
	if errors.As(err, &apiErr) && apiErr.ErrorCode() != "InternalFailure" {
		return refuse(http.StatusBadRequest, apiErr.ErrorCode(), apiErr.ErrorMessage())
	}
	return err
}

// portalConnect gives the right to open one connection to one desktop.
func (c *Console) portalConnect(ctx context.Context, r *request) (any, error) {
	sessionKey, u, err := c.portalUser(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		WorkspaceID string `json:"workspaceId"`
	}
	if err := r.in(&in); err != nil {
		return nil, err
	}
	if _, err := c.ownDesktop(u, in.WorkspaceID); err != nil {
		return nil, err
	}
	if err := c.cfg.Desktops.Shows(c.cfg.Store.Snapshot(), u.Account, u.Region, in.WorkspaceID, u.SID); err != nil {
		if errors.Is(err, ws.ErrNotShown) {
			return nil, refuse(http.StatusConflict, "DesktopNotAvailable", sentence(err))
		}
		return nil, err
	}
	token, key := newToken()
	t := &ticket{Expires: c.cfg.Clock.Now().Add(ticketLife), Addr: r.addr.String(), Origin: origin(r.Request), User: u, WorkspaceID: in.WorkspaceID, SessionKey: sessionKey, Path: ids.UUID()}
	if err := c.cfg.Store.Update(ctx, func(tx *store.Tx) error { return c.tickets.Put(tx, key, t) }); err != nil {
		return nil, err
	}
	return map[string]string{"path": "/desktops/" + t.Path + "/ws", "token": token}, nil
}

// event records what a directory user did at the portal, as a service event of
// WorkSpaces. failure is "" for a success.
func (c *Console) event(ctx context.Context, r *request, u *portalUser, name, workspaceID, failure string) error {
	data := map[string]any{"directoryId": u.DirectoryID}
	if u.SID != "" {
		data["userName"], data["sidDirectoryId"] = u.UserName, u.sidDirectoryID()
	}
	if workspaceID != "" {
		data["workspaceId"] = workspaceID
	}
	rec := &audit.Record{EventVersion: "1.11", UserIdentity: audit.UserIdentity{Type: string(api.AWSService), InvokedBy: "workspaces.amazonaws.com"},
		EventTime: audit.Time{Time: c.cfg.Clock.Now().UTC()}, EventSource: "workspaces.amazonaws.com", EventName: name, AWSRegion: u.Region,
		SourceIPAddress: r.addr.String(), UserAgent: r.UserAgent(), AdditionalEventData: data, EventID: ids.UUID(), EventType: "AwsServiceEvent",
		ManagementEvent: true, RecipientAccountID: u.Account, EventCategory: "Management"}
	if failure != "" {
		rec.ErrorCode, rec.ErrorMessage = "AccessDenied", failure
	}
	if workspaceID != "" {
		rec.Resources = []audit.Resource{{AccountID: u.Account, Type: "AWS::WorkSpaces::Workspace", ARN: "arn:aws:workspaces:" + u.Region + ":" + u.Account + ":workspace/" + workspaceID}}
	}
	return c.cfg.Audit.Append(context.WithoutCancel(ctx), rec)
}
