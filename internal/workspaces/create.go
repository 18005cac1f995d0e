package workspaces

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// defaultKey is the AWS managed key of the service.
const defaultKey = "alias/aws/workspaces"

// launchHold keeps the reconciler away from a WorkSpace whose launch call is
// still creating the grant; after a crash it takes over.
const launchHold = 30 * time.Second

// failure is why one item of a batch was refused.
type failure struct{ code, message string }

func (f *failure) Error() string { return f.code + ": " + f.message }

func refuse(code, format string, a ...any) *failure {
	return &failure{code, fmt.Sprintf(format, a...)}
}

// onCreate: CreateWorkspaces is authorised on the bundle, the directory and
// workspace/*, once for each that the request names.
func (s *Service) onCreate(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.CreateWorkspacesInput) ([]api.Target, error) {
	seen := map[string]bool{}
	var out []api.Target
	add := func(arn string, keys map[string][]string) {
		if !seen[arn] {
			seen[arn] = true
			out = append(out, api.Target{ARN: arn, Account: c.Account, Keys: keys})
		}
	}
	for _, r := range in.Workspaces {
		keys := map[string][]string{}
		var tagKeys []string
		for _, t := range r.Tags {
			keys["aws:RequestTag/"+deref(t.Key)] = []string{deref(t.Value)}
			tagKeys = append(tagKeys, deref(t.Key))
		}
		if tagKeys != nil {
			keys["aws:TagKeys"] = tagKeys
		}
		for kind, id := range map[string]string{"workspacebundle": deref(r.BundleId), "directory": deref(r.DirectoryId), "workspace": "*"} {
			k := maps.Clone(keys)
			if tags, ok := s.tagsOf(tx, c, id); ok {
				for tk, v := range tags {
					k["aws:ResourceTag/"+tk] = []string{v}
				}
			}
			add(resourceARN(c, kind, id), k)
		}
	}
	return out, nil
}

// createWorkspaces launches up to 25 desktops. An item that is refused is in
// FailedRequests with its reason and leaves nothing behind.
func (s *Service) createWorkspaces(ctx context.Context, c *api.Call, in *workspaces.CreateWorkspacesInput) (*workspaces.CreateWorkspacesOutput, error) {
	out := &workspaces.CreateWorkspacesOutput{FailedRequests: []wstypes.FailedCreateWorkspaceRequest{}, PendingRequests: []wstypes.Workspace{}}
	for i := range in.Workspaces {
		r := in.Workspaces[i]
		w, err := s.launch(ctx, c, &r)
		var f *failure
		switch {
		case errors.As(err, &f):
			out.FailedRequests = append(out.FailedRequests, wstypes.FailedCreateWorkspaceRequest{WorkspaceRequest: &r, ErrorCode: &f.code, ErrorMessage: &f.message})
		case err != nil:
			return nil, err
		default:
			out.PendingRequests = append(out.PendingRequests, *show(w))
		}
	}
	return out, nil
}

// launch checks one request, records it, and creates the grant in the caller's
// name. When the grant is refused the record goes again.
func (s *Service) launch(ctx context.Context, c *api.Call, r *wstypes.WorkspaceRequest) (*workspace, error) {
	now := s.cfg.Clock.Now()
	id := ids.WorkSpace("ws")
	var w *workspace
	keyARN, keyErr := "", error(nil)
	if aws.ToBool(r.RootVolumeEncryptionEnabled) || aws.ToBool(r.UserVolumeEncryptionEnabled) {
		// The user and the rest of the request are checked first: who misspells a
		// user name should not hear about keys, nor make one.
		if _, err := s.check(s.cfg.Store.Snapshot(), c, r, id, now); err != nil {
			return nil, err
		}
		if keyARN, keyErr = s.resolveKey(ctx, c, r.VolumeEncryptionKey); keyErr != nil {
			return nil, keyErr
		}
	}
	err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if w, err = s.check(tx, c, r, id, now); err != nil {
			return err
		}
		w.KeyARN, w.NotBefore = keyARN, now.Add(launchHold)
		return s.workspaces.Put(tx, w.key(), w)
	})
	if err != nil {
		return nil, err
	}
	if w.encrypted() {
		grantID, err := s.createGrant(ctx, c.Forward(name), w)
		if err != nil {
			return nil, errors.Join(err, s.forget(ctx, w.key()))
		}
		w, err = s.change(ctx, w.key(), func(w *workspace) { w.GrantID, w.NotBefore = grantID, time.Time{} })
		return w, err
	}
	return s.change(ctx, w.key(), func(w *workspace) { w.NotBefore = time.Time{} })
}

var workspaceTag = regexp.MustCompile(`^(aws:|AWS:)`)

// check validates one request against the directory, the bundle and the limits
// and returns the record to store.
func (s *Service) check(tx *store.Tx, c *api.Call, r *wstypes.WorkspaceRequest, id string, now time.Time) (*workspace, error) {
	reg := s.directories.Get(tx, key(c.Account, c.Region, deref(r.DirectoryId)))
	dir, found := s.cfg.Directories.Directory(tx, c.Account, c.Region, deref(r.DirectoryId))
	if !found || reg == nil {
		if found {
			return nil, refuse("ResourceNotFound.Directory", "The directory %s is not registered with WorkSpaces. Register it with RegisterWorkspaceDirectory.", dir.ID)
		}
		return nil, refuse("ResourceNotFound.Directory", "The specified directory could not be found in the specified region.")
	}
	if deref(r.WorkspaceName) != "" {
		return nil, refuse("InvalidParameterValue.WorkspaceName", "WorkspaceName is for WorkSpaces without a user (UserName [UNDEFINED]), which need a WorkSpaces Pools directory; leave it out.")
	}
	if deref(r.Ipv6Address) != "" {
		return nil, refuse("InvalidParameterValue.Ipv6Address", "Desktops have no IPv6 address here; leave Ipv6Address out.")
	}
	user, ok := s.cfg.Directories.User(tx, c.Account, c.Region, dir.ID, deref(r.UserName))
	if !ok {
		return nil, refuse("ResourceNotFound.User", "The user %s could not be found in the directory %s.", deref(r.UserName), dir.ID)
	}
	if !user.Enabled {
		return nil, refuse("InvalidUserConfiguration.Workspace", "The user %s of the directory %s is disabled.", user.Name, dir.ID)
	}
	for _, k := range s.byUser.Keys(userKey(c.Account, c.Region, dir.ID, user.SID), "", 0) {
		if other := s.workspaces.Get(tx, k); other != nil {
			return nil, refuse("ResourceExists.WorkSpace", "A WorkSpace already exists for the specified user. (%s)", other.ID)
		}
	}
	b := s.bundle(tx, c, deref(r.BundleId))
	if b == nil {
		return nil, refuse("ResourceNotFound.Bundle", "The specified bundle could not be found: %s. DescribeWorkspaceBundles with Owner AMAZON lists what there is.", deref(r.BundleId))
	}
	if len(r.Tags) > maxTags {
		return nil, refuse("ResourceLimitExceeded.Tags", "A WorkSpace has at most %d tags.", maxTags)
	}
	w := &workspace{Account: c.Account, Region: c.Region, ID: id, DirectoryID: dir.ID, UserName: user.Name, SID: user.SID, BundleID: b.ID,
		ComputerName: computerName(id), KeyRef: deref(r.VolumeEncryptionKey), EncryptRoot: aws.ToBool(r.RootVolumeEncryptionEnabled), EncryptUser: aws.ToBool(r.UserVolumeEncryptionEnabled),
		RootGiB: b.RootGiB, UserGiB: b.UserGiB, Compute: b.Compute, RunningMode: wstypes.RunningModeAlwaysOn, Protocols: []wstypes.Protocol{protocol},
		State: wstypes.WorkspaceStatePending, Task: taskCreate, Caller: c.Principal, Created: now, StateSince: now, LastActive: now, Tags: map[string]string{}}
	if len(reg.SubnetIDs) > 0 {
		w.SubnetID = reg.SubnetIDs[0]
	}
	if w.encrypted() && w.KeyRef == "" {
		w.KeyRef = defaultKey
	}
	for _, t := range r.Tags {
		if workspaceTag.MatchString(deref(t.Key)) {
			return nil, refuse("InvalidParameterValue.Tags", "Tag keys that begin with aws: are reserved.")
		}
		w.Tags[deref(t.Key)] = deref(t.Value)
	}
	if p := r.WorkspaceProperties; p != nil {
		if f := applyProperties(w, p, b); f != nil {
			return nil, f
		}
	}
	return w, nil
}

// protocol is what desktops speak to clients here: their screen in the browser.
const protocol = wstypes.ProtocolWsp

// applyProperties sets what the caller asked for beyond the bundle's defaults.
func applyProperties(w *workspace, p *wstypes.WorkspaceProperties, b *bundle) *failure {
	if p.GlobalAccelerator != nil {
		return refuse("UnsupportedWorkspaceConfiguration", "GlobalAccelerator is not available here; leave it out.")
	}
	if p.RunningMode != "" {
		w.RunningMode = p.RunningMode
	}
	timeout := int(aws.ToInt32(p.RunningModeAutoStopTimeoutInMinutes))
	switch w.RunningMode {
	case wstypes.RunningModeAutoStop:
		if p.RunningModeAutoStopTimeoutInMinutes == nil {
			timeout = 60
		}
		if timeout <= 0 || timeout%60 != 0 {
			return refuse("InvalidParameterValue.RunningModeAutoStopTimeoutInMinutes", "RunningModeAutoStopTimeoutInMinutes must be a multiple of 60, not %d.", timeout)
		}
		w.AutoStopMinutes = timeout
	case wstypes.RunningModeManual:
		if timeout != 0 {
			return refuse("AutoStopTimeoutIsNotDefaultForManualWorkspace", "RunningModeAutoStopTimeoutInMinutes is not applicable for WorkSpace with running mode set to MANUAL.")
		}
		w.AutoStopMinutes = 0
	default:
		if timeout != 0 {
			return refuse("AutoStopTimeoutIsNotApplicableForAnAlwaysOnWorkspace", "RunningModeAutoStopTimeoutInMinutes is not applicable for WorkSpace with running mode set to ALWAYS_ON.")
		}
		w.AutoStopMinutes = 0
	}
	if p.ComputeTypeName != "" {
		if _, ok := machineSizes[p.ComputeTypeName]; !ok {
			return refuse("UnsupportedWorkspaceConfiguration", "Compute type %s is not available here. Available: %s.", p.ComputeTypeName, availableComputeTypes())
		}
		w.Compute = p.ComputeTypeName
	}
	if p.OperatingSystemName != "" && p.OperatingSystemName != wstypes.OperatingSystemNameUnknown {
		return refuse("OperatingSystemNotCompatible", "The bundle %s is Debian GNU/Linux; OperatingSystemName %s does not fit it. Leave it out.", b.ID, p.OperatingSystemName)
	}
	if len(p.Protocols) > 0 {
		for _, pr := range p.Protocols {
			if pr != protocol {
				return refuse("UnsupportedWorkspaceConfiguration", "Protocol %s is not available here; use %s.", pr, protocol)
			}
		}
	}
	if v := aws.ToInt32(p.RootVolumeSizeGib); p.RootVolumeSizeGib != nil {
		if int(v) < b.RootGiB || v > 2000 {
			return refuse("InvalidParameterValue.RootVolumeSizeGib", "RootVolumeSizeGib %d: want %d (the bundle's) to 2000.", v, b.RootGiB)
		}
		w.RootGiB = int(v)
	}
	if v := aws.ToInt32(p.UserVolumeSizeGib); p.UserVolumeSizeGib != nil {
		if v < 1 || v > 2000 {
			return refuse("InvalidParameterValue.UserVolumeSizeGib", "UserVolumeSizeGib %d: want 1 to 2000.", v)
		}
		w.UserGiB = int(v)
	}
	return nil
}

// computerName is the host name of a desktop: WSAMZN- and eight letters, as on AWS.
func computerName(id string) string {
	return "WSAMZN-" + strings.ToUpper(strings.TrimPrefix(id, "ws-"))[:8]
}

// resolveKey finds the key that a launch names and makes sure that it can
// encrypt volumes. It asks KMS with the caller's permissions; a caller who may
// not describe keys can still name one by ID or ARN, and CreateGrant decides.
func (s *Service) resolveKey(ctx context.Context, c *api.Call, ref *string) (string, error) {
	keyRef := deref(ref)
	if keyRef == "" {
		keyRef = defaultKey
	}
	out, err := api.Do[kms.DescribeKeyOutput](ctx, s.cfg.Caller, c.Forward(name), "kms", "DescribeKey", &kms.DescribeKeyInput{KeyId: &keyRef})
	if err != nil {
		var apiErr smithy.APIError
		if errors.As(err, &apiErr) && apiErr.ErrorCode() == "AccessDeniedException" && !strings.Contains(keyRef, "alias/") {
			return keyRef, nil
		}
		return "", keyFailure(keyRef, err)
	}
	m := out.KeyMetadata
	if m.KeySpec != kmstypes.KeySpecSymmetricDefault || m.KeyUsage != kmstypes.KeyUsageTypeEncryptDecrypt {
		return "", refuse("UnsupportedKey", "The key %s cannot encrypt volumes: InvalidKeyUsageException: its key spec is %s and its usage %s. WorkSpaces needs a symmetric encryption key (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT).", deref(m.Arn), m.KeySpec, m.KeyUsage)
	}
	if m.KeyState != kmstypes.KeyStateEnabled {
		code := "KMSInvalidStateException"
		if m.KeyState == kmstypes.KeyStateDisabled {
			code = "DisabledException"
		}
		return "", refuse("InvalidKeyState", "The key cannot be used: %s: %s is %s. Enable it, or choose another key.", code, deref(m.Arn), stateWords(m.KeyState))
	}
	return deref(m.Arn), nil
}

func stateWords(st kmstypes.KeyState) string {
	switch st {
	case kmstypes.KeyStatePendingDeletion:
		return "pending deletion"
	case kmstypes.KeyStatePendingImport:
		return "pending import"
	}
	return strings.ToLower(string(st))
}

// keyFailure turns a KMS error into the reason a launch is refused for.
func keyFailure(keyRef string, err error) error {
	var apiErr smithy.APIError
	if !errors.As(err, &apiErr) {
		return err
	}
	switch code := apiErr.ErrorCode(); code {
	case "NotFoundException", "InvalidArnException":
		return refuse("ResourceNotFound.Key", "The specified key could not be found. Please provide a valid key for encryption. (%s: %s: %s)", keyRef, code, apiErr.ErrorMessage())
	case "AccessDeniedException":
		return refuse("AccessDenied.Key", "You may not use the key %s for WorkSpaces: AccessDeniedException: %s. The key policy must name you as a key user and your IAM policy must allow kms:CreateGrant.", keyRef, strings.TrimSuffix(apiErr.ErrorMessage(), "."))
	case "DisabledException", "KMSInvalidStateException":
		return refuse("InvalidKeyState", "The key cannot be used: %s: %s Enable it, or choose another key.", code, apiErr.ErrorMessage())
	case "InternalFailure":
		return err
	default:
		return refuse("UnsupportedKey", "The key %s cannot be used: %s: %s", keyRef, code, apiErr.ErrorMessage())
	}
}

// createGrant is step 1 of MISSION: WorkSpaces may use the key only for this
// user of this directory. The name makes a repetition give the same grant.
func (s *Service) createGrant(ctx context.Context, c *api.Call, w *workspace) (string, error) {
	host := api.Host(name, w.Region)
	out, err := api.Do[kms.CreateGrantOutput](ctx, s.cfg.Caller, c, "kms", "CreateGrant", &kms.CreateGrantInput{
		KeyId: &w.KeyARN, Name: aws.String(w.ID), GranteePrincipal: &host, RetiringPrincipal: &host,
		Operations: []kmstypes.GrantOperation{kmstypes.GrantOperationCreateGrant, kmstypes.GrantOperationGenerateDataKeyWithoutPlaintext,
			kmstypes.GrantOperationDecrypt, kmstypes.GrantOperationDescribeKey, kmstypes.GrantOperationRetireGrant},
		Constraints: &kmstypes.GrantConstraints{EncryptionContextSubset: map[string]string{"aws:workspaces:sid-directoryid": w.sidDirectoryID()}},
	})
	if err != nil {
		return "", keyFailure(w.KeyARN, err)
	}
	return deref(out.GrantId), nil
}

// forget removes the record of a launch that was refused.
func (s *Service) forget(ctx context.Context, key string) error {
	return s.cfg.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return s.workspaces.Delete(tx, key) })
}

// change edits one record and returns it as stored; nil when it is gone.
func (s *Service) change(ctx context.Context, key string, f func(w *workspace)) (*workspace, error) {
	var w *workspace
	err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if w = s.workspaces.Edit(tx, key); w == nil {
			return nil
		}
		f(w)
		return s.workspaces.Put(tx, key, w)
	})
	return w, err
}

func deref(s *string) string { return aws.ToString(s) }
