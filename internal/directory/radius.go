package directory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/api"
	radiusclient "github.com/sealdesk/sealdesk/internal/directory/radius"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// radius is a directory's second factor. Key: that of the directory.
type radius struct {
	Servers         []string  `json:"servers"`
	ServersIPv6     []string  `json:"serversIpv6,omitempty"`
	Port            int32     `json:"port"`
	TimeoutSeconds  int32     `json:"timeoutSeconds"`
	Retries         int32     `json:"retries"`
	Protocol        string    `json:"protocol"`
	Label           string    `json:"label,omitempty"`
	UseSameUsername bool      `json:"useSameUsername,omitempty"`
	Secret          []byte    `json:"secret"` // wrapped
	Status          string    `json:"status"`
	Set             time.Time `json:"set"`
}

const radiusPurpose = "directory/radius"

// What is meant when the caller does not say. Source: the console's defaults, and
// RFC 2865, section 3, for the port.
const (
	radiusPort    = 1812
	radiusTimeout = 5 // seconds
)

// radiusProbe is the user a new setting is tried with; it is nobody, and any answer will do.
const radiusProbe = "awsfakeuser"

var radiusHost = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,254}[A-Za-z0-9])?$`)

func (s *Service) enableRadius(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.EnableRadiusInput) (*directoryservice.EnableRadiusOutput, error) {
	d, err := s.radiusDirectory(tx, c, in.DirectoryId)
	if err != nil {
		return nil, err
	}
	if s.radiuses.Get(tx, d.key()) != nil {
		return nil, &dstypes.EntityAlreadyExistsException{Message: sprintf("RADIUS is already enabled for directory %s. Use UpdateRadius to change its settings.", d.ID)}
	}
	if in.RadiusSettings.SharedSecret == nil {
		return nil, invalid("SharedSecret is required to enable RADIUS.")
	}
	return &directoryservice.EnableRadiusOutput{}, s.setRadius(tx, c, d, &radius{Port: radiusPort, TimeoutSeconds: radiusTimeout, Protocol: radiusclient.PAP}, in.RadiusSettings)
}

// updateRadius keeps what is not given, the secret too.
func (s *Service) updateRadius(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.UpdateRadiusInput) (*directoryservice.UpdateRadiusOutput, error) {
	d, err := s.radiusDirectory(tx, c, in.DirectoryId)
	if err != nil {
		return nil, err
	}
	r := s.radiuses.Edit(tx, d.key())
	if r == nil {
		return nil, noRadius(d)
	}
	return &directoryservice.UpdateRadiusOutput{}, s.setRadius(tx, c, d, r, in.RadiusSettings)
}

func (s *Service) disableRadius(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DisableRadiusInput) (*directoryservice.DisableRadiusOutput, error) {
	d, err := s.find(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	if s.radiuses.Get(tx, d.key()) == nil {
		return nil, noRadius(d)
	}
	touched(c, d)
	return &directoryservice.DisableRadiusOutput{}, s.radiuses.Delete(tx, d.key())
}

func noRadius(d *directory) error {
	return &dstypes.EntityDoesNotExistException{Message: sprintf("RADIUS is not enabled for directory %s.", d.ID)}
}

// radiusDirectory finds a directory that can have a second factor.
func (s *Service) radiusDirectory(tx *store.Tx, c *api.Call, id *string) (*directory, error) {
	d, err := s.find(tx, c, deref(id))
	if err != nil {
		return nil, err
	}
	if d.Type != microsoftAD {
		return nil, &dstypes.ClientException{Message: sprintf("RADIUS is not supported for directory %s of type %s, only for Microsoft AD.", d.ID, d.Type)}
	}
	if d.Stage != string(dstypes.DirectoryStageActive) {
		return nil, &dstypes.ClientException{Message: sprintf("Directory %s is not available: its stage is %s, not Active.", d.ID, d.Stage)}
	}
	return d, nil
}

// setRadius takes over what in says and has the servers tried (runRadius).
func (s *Service) setRadius(tx *store.Tx, c *api.Call, d *directory, r *radius, in *dstypes.RadiusSettings) error {
	if in.RadiusServers != nil || in.RadiusServersIpv6 != nil {
		r.Servers, r.ServersIPv6 = slices.Clone(in.RadiusServers), slices.Clone(in.RadiusServersIpv6)
	}
	if in.RadiusPort != nil {
		r.Port = *in.RadiusPort
	}
	if in.RadiusTimeout != nil {
		r.TimeoutSeconds = *in.RadiusTimeout
	}
	r.Retries, r.UseSameUsername = in.RadiusRetries, in.UseSameUsername
	if in.AuthenticationProtocol != "" {
		r.Protocol = string(in.AuthenticationProtocol)
	}
	if in.DisplayLabel != nil {
		r.Label = *in.DisplayLabel
	}
	if len(r.Servers)+len(r.ServersIPv6) == 0 {
		return invalid("RadiusServers must name at least one server.")
	}
	for _, h := range r.Servers {
		if _, err := netip.ParseAddr(h); err != nil && !radiusHost.MatchString(h) {
			return invalid("RadiusServers: %q is neither a host name nor an IP address.", h)
		}
	}
	for _, h := range r.ServersIPv6 {
		if a, err := netip.ParseAddr(h); err != nil || !a.Is6() {
			return invalid("RadiusServersIpv6: %q is not an IPv6 address.", h)
		}
	}
	if !slices.Contains(radiusclient.Protocols, r.Protocol) {
		return invalid("AuthenticationProtocol must be one of %v, not %q.", radiusclient.Protocols, r.Protocol)
	}
	if in.SharedSecret != nil {
		text := secret.New([]byte(*in.SharedSecret))
		defer text.Wipe()
		var err error
		if r.Secret, err = s.cfg.Root.Wrap(radiusPurpose, text, []byte(d.key())); err != nil {
			return fmt.Errorf("wrap the RADIUS secret of %s: %w", d.ID, err)
		}
	}
	r.Status, r.Set = string(dstypes.RadiusStatusCreating), s.cfg.Clock.Now()
	touched(c, d)
	return s.radiuses.Put(tx, d.key(), r)
}

// describeRadius shows all but the secret.
func (r *radius) describe() *dstypes.RadiusSettings {
	return &dstypes.RadiusSettings{AuthenticationProtocol: dstypes.RadiusAuthenticationProtocol(r.Protocol), DisplayLabel: opt(r.Label), RadiusPort: &r.Port, RadiusRetries: r.Retries,
		RadiusServers: r.Servers, RadiusServersIpv6: r.ServersIPv6, RadiusTimeout: &r.TimeoutSeconds, UseSameUsername: r.UseSameUsername}
}

// ask puts a code to the directory's servers.
func (s *Service) askRadius(ctx context.Context, key string, r *radius, userName, code string) error {
	text, err := s.cfg.Root.Unwrap(radiusPurpose, r.Secret, []byte(key))
	if err != nil {
		return fmt.Errorf("open the RADIUS secret of %s: %w", key, err)
	}
	defer text.Wipe()
	return radiusclient.Check(ctx, radiusclient.Settings{Servers: slices.Concat(r.Servers, r.ServersIPv6), Port: int(r.Port), Timeout: time.Duration(r.TimeoutSeconds) * time.Second,
		Retries: int(r.Retries), Protocol: r.Protocol, Secret: text}, userName, code)
}

// runRadius tries settings that are new: Creating → Completed, or Failed when no
// server answers with the shared secret.
func (s *Service) runRadius(ctx context.Context) {
	for ctx.Err() == nil {
		changed := s.cfg.Store.Changed()
		var wg sync.WaitGroup
		s.radiuses.Scan(s.cfg.Store.Snapshot(), "", "", func(key string, r *radius) bool {
			if r.Status == string(dstypes.RadiusStatusCreating) {
				wg.Go(func() { s.tryRadius(ctx, key, r) })
			}
			return true
		})
		wg.Wait()
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

func (s *Service) tryRadius(ctx context.Context, key string, r *radius) {
	status := dstypes.RadiusStatusCompleted
	if err := s.askRadius(ctx, key, r, radiusProbe, "probe"); err != nil && !errors.Is(err, radiusclient.ErrRejected) {
		s.cfg.Logger.Warn("no RADIUS server of a directory answered", "directory", key, "err", err)
		status = dstypes.RadiusStatusFailed
	}
	err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		now := s.radiuses.Edit(tx, key)
		if now == nil || !now.Set.Equal(r.Set) {
			return nil // changed meanwhile: it is tried again
		}
		now.Status = string(status)
		return s.radiuses.Put(tx, key, now)
	})
	if err != nil && ctx.Err() == nil {
		s.cfg.Logger.Warn("the state of a directory's RADIUS servers was not recorded", "directory", key, "err", err)
		select { // runRadius comes again with the next change
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// Errors of CheckCode.
var (
	// ErrCode: the second factor is wrong.
	ErrCode = errors.New("directory: the code is incorrect")
	// ErrNoSecondFactor: nobody can tell, because no RADIUS server answers.
	ErrNoSecondFactor = errors.New("directory: no RADIUS server answers")
)

// SecondFactor tells whether a directory asks its users for a code, and what it calls
// it. It asks from EnableRadius on, whether or not its servers answered then: a second
// factor that went away by itself would be none.
func (s *Service) SecondFactor(tx *store.Tx, account, region, directoryID string) (label string, ok bool) {
	r := s.radiuses.Get(tx, account+"/"+region+"/"+directoryID)
	if r == nil {
		return "", false
	}
	return r.Label, true
}

// CheckCode asks the directory's RADIUS servers about a user's code. A directory
// without a second factor takes any.
func (s *Service) CheckCode(ctx context.Context, u User, code string) error {
	key := u.Account + "/" + u.Region + "/" + u.DirectoryID
	r := s.radiuses.Get(s.cfg.Store.Snapshot(), key)
	if r == nil {
		return nil
	}
	switch err := s.askRadius(ctx, key, r, u.SAMAccountName, code); {
	case errors.Is(err, radiusclient.ErrRejected):
		return ErrCode
	case errors.Is(err, radiusclient.ErrNoAnswer):
		s.cfg.Logger.Warn("a code could not be checked", "directory", key, "err", err)
		return ErrNoSecondFactor
	default:
		return err
	}
}
