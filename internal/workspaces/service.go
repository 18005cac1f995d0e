// Package workspaces is Amazon WorkSpaces: one desktop per directory user, its
// two volumes encrypted under a key the caller chose, from launch to termination.
//
// What it promises:
//
//   - A WorkSpace is opened only through KMS. At launch the service creates, with
//     the caller's own permissions, a grant that lets WorkSpaces use the key for
//     this user of this directory; EBS works under child grants of it, one a
//     volume; at termination each holder retires its own.
//   - A handler records intent; the reconciler (Run) makes it real, may be killed
//     at any line, and records the outcome. Every WorkSpace is either what its
//     state says or has an ErrorMessage that says why not.
//   - A refused launch leaves nothing behind.
//
// Source: WorkSpaces API reference and administration guide ("Encrypted
// WorkSpaces"); KMS developer guide, "How Amazon WorkSpaces uses AWS KMS".
package workspaces

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/workspaces"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/store"
)

// name is the SigV4 service name and the prefix of IAM actions.
const name = "workspaces"

// Directories is what WorkSpaces asks of Directory Service.
type Directories interface {
	// User finds an enabled or disabled user by name, case-insensitively.
	User(tx *store.Tx, account, region, directoryID, userName string) (DirectoryUser, bool)
	// Directory finds a directory.
	Directory(tx *store.Tx, account, region, directoryID string) (Directory, bool)
}

// DirectoryUser is a user of a directory.
type DirectoryUser struct {
	Name        string // sAMAccountName as stored
	DisplayName string
	SID         string // "S-1-5-21-…"
	Enabled     bool
}

// Directory is a directory as WorkSpaces shows it.
type Directory struct {
	ID, Name, Alias string
	Type            string // SimpleAD, MicrosoftAD
	Stage           string // Active, …
	DNSIPs          []string
	SubnetIDs       []string
}

// VolumeRequest asks EBS for a volume of a WorkSpace.
type VolumeRequest struct {
	WorkspaceID    string
	Role           compute.DiskRole
	SizeGiB        int
	Encrypted      bool
	KeyARN         string // of the encryption key; empty when not encrypted
	SidDirectoryID string // "[S-1-5-21-…]@[d-…]"
	From           Source // what it begins with
	ClientToken    string // the same token gives the same volume
}

// Source is what a volume begins with: the raw image at a path, the snapshot that is
// an image of a WorkSpace, or, when both are empty, nothing.
type Source struct{ Path, Snapshot string }

// VolumeStatus is how a volume is.
type VolumeStatus struct {
	State  string // creating, available, in-use, deleting, error; "" when it does not exist
	Reason string // why it is in error
}

// Volumes is what WorkSpaces asks of EBS. Every method may be called again after
// a crash with the same arguments and then does nothing twice. Each goes through
// the operation table as a call of EC2 by the service principal of c.
type Volumes interface {
	Create(ctx context.Context, c *api.Call, v VolumeRequest) (volumeID string, err error)
	Status(ctx context.Context, c *api.Call, volumeID string) (VolumeStatus, error)
	// Attach opens the volume with its data key and serves it; when it is already
	// attached to the WorkSpace it only says where. The disk has no role yet.
	Attach(ctx context.Context, c *api.Call, volumeID, workspaceID, device string) (compute.Disk, error)
	Detach(ctx context.Context, c *api.Call, volumeID string) error
	// Reset renews a detached volume from an image, under the data key it has.
	Reset(ctx context.Context, c *api.Call, volumeID string, from Source) error
	Delete(ctx context.Context, c *api.Call, volumeID string) error
	// Snapshot keeps the volume's state; the same name gives the same snapshot.
	Snapshot(ctx context.Context, c *api.Call, volumeID, snapshotName string) (snapshotID string, err error)
	// Restore takes a detached volume back to a snapshot of it.
	Restore(ctx context.Context, c *api.Call, volumeID, snapshotID string) error
	// DeleteSnapshots deletes the snapshots of a WorkSpace's volumes but those to keep.
	DeleteSnapshots(ctx context.Context, c *api.Call, workspaceID string, keep ...string) error
	// HandOver makes a detached user volume that of another WorkSpace of the same user; one that is already is left alone.
	HandOver(ctx context.Context, c *api.Call, volumeID, workspaceID string) error
	// KeepImage keeps a detached volume's state as the image with the ID; the same ID gives the same snapshot.
	KeepImage(ctx context.Context, c *api.Call, volumeID, imageID string) (snapshotID string, err error)
	// CopyImage copies the snapshot of an image of any account and region, as the image with the ID.
	CopyImage(ctx context.Context, c *api.Call, account, region, snapshotID, imageID string) (copyID string, err error)
	// DeleteImage deletes the snapshot of an image; one that is gone is fine.
	DeleteImage(ctx context.Context, c *api.Call, snapshotID string) error
	// Grow makes the volume as large as sizeGiB, attached or not.
	Grow(ctx context.Context, c *api.Call, volumeID string, sizeGiB int) error
}

// Config is what the service needs.
type Config struct {
	Store       *store.Store
	Clock       clock.Clock
	Logger      *slog.Logger
	Caller      api.Caller
	Directories Directories
	Volumes     Volumes
	Compute     compute.Driver
	// Image finds the desktop image of an operating system, a raw disk, or says
	// why there is none and how to get one.
	Image func() (path string, err error)
	// BootTimeout bounds the time from power-on to a painted desktop; default 15 minutes.
	BootTimeout time.Duration
	// StopGrace is how long a guest may take to power off; default 60 seconds.
	StopGrace time.Duration
	// SnapshotEvery is the time between snapshots of a running desktop's volumes; default 12 hours.
	SnapshotEvery time.Duration
}

// Service serves the WorkSpaces API.
type Service struct {
	cfg Config
	log *slog.Logger

	workspaces  *store.Table[workspace]
	byUser      *store.Index[workspace]
	directories *store.Table[registration]
	bundles     *store.Table[bundle]
	ipGroups    *store.Table[ipGroup]
	aliases     *store.Table[connectionAlias]
	images      *store.Table[image]

	mu      sync.Mutex
	working map[string]bool // record keys a worker is busy with
}

// New declares the tables. Start the store, then Run the service.
func New(cfg Config) *Service {
	if cfg.BootTimeout == 0 {
		cfg.BootTimeout = 15 * time.Minute
	}
	if cfg.StopGrace == 0 {
		cfg.StopGrace = time.Minute
	}
	if cfg.SnapshotEvery == 0 {
		cfg.SnapshotEvery = 12 * time.Hour
	}
	s := &Service{cfg: cfg, log: cfg.Logger, working: map[string]bool{}}
	s.workspaces = store.Define[workspace](cfg.Store, "workspaces/workspace", 1)
	s.byUser = store.NewIndex(s.workspaces, func(_ string, w *workspace) []string {
		return []string{userKey(w.Account, w.Region, w.DirectoryID, w.SID)}
	})
	s.directories = store.Define[registration](cfg.Store, "workspaces/directory", 1)
	s.bundles = store.Define[bundle](cfg.Store, "workspaces/bundle", 1)
	s.ipGroups = store.Define[ipGroup](cfg.Store, "workspaces/ip-group", 1)
	s.aliases = store.Define[connectionAlias](cfg.Store, "workspaces/connection-alias", 1)
	s.images = store.Define[image](cfg.Store, "workspaces/image", 1)
	return s
}

// Operations is the service's part of the operation table.
func (s *Service) Operations() []api.Operation {
	onIDs := func(kind string) func(c *api.Call, ids []string) []api.Target {
		return func(c *api.Call, ids []string) []api.Target { return s.targets(c, kind, ids) }
	}
	onWorkspaces := onIDs("workspace")
	ops := []api.Operation{
		api.NewSteps(name, "CreateWorkspaces", s.createWorkspaces, api.On(s.onCreate)),
		api.NewView(name, "DescribeWorkspaces", s.describeWorkspaces),
		api.NewView(name, "DescribeWorkspacesConnectionStatus", s.describeConnectionStatus),
		api.NewView(name, "DescribeWorkspaceSnapshots", s.describeSnapshots, api.On(on(func(c *api.Call, in *describeSnapshotsInput) []api.Target {
			return onWorkspaces(c, []string{deref(in.WorkspaceId)})
		}))),
		api.NewUpdate(name, "RebootWorkspaces", s.rebootWorkspaces, api.On(on(func(c *api.Call, in *rebootInput) []api.Target {
			return onWorkspaces(c, rebootIDs(in))
		}))),
		api.NewUpdate(name, "RebuildWorkspaces", s.rebuildWorkspaces, api.On(on(func(c *api.Call, in *rebuildInput) []api.Target {
			return onWorkspaces(c, rebuildIDs(in))
		}))),
		api.NewUpdate(name, "RestoreWorkspace", s.restoreWorkspace, api.On(on(func(c *api.Call, in *workspaces.RestoreWorkspaceInput) []api.Target {
			return onWorkspaces(c, []string{deref(in.WorkspaceId)})
		}))),
		api.NewUpdate(name, "StartWorkspaces", s.startWorkspaces, api.On(on(func(c *api.Call, in *startInput) []api.Target {
			return onWorkspaces(c, startIDs(in))
		}))),
		api.NewUpdate(name, "StopWorkspaces", s.stopWorkspaces, api.On(on(func(c *api.Call, in *stopInput) []api.Target {
			return onWorkspaces(c, stopIDs(in))
		}))),
		api.NewUpdate(name, "TerminateWorkspaces", s.terminateWorkspaces, api.On(on(func(c *api.Call, in *terminateInput) []api.Target {
			return onWorkspaces(c, terminateIDs(in))
		}))),
		api.NewUpdate(name, "ModifyWorkspaceState", s.modifyWorkspaceState, api.On(on(func(c *api.Call, in *modifyStateInput) []api.Target {
			return onWorkspaces(c, []string{deref(in.WorkspaceId)})
		}))),
		api.NewUpdate(name, "ModifyWorkspaceProperties", s.modifyWorkspaceProperties, api.Refuses("DataReplication"), api.On(on(func(c *api.Call, in *modifyPropertiesInput) []api.Target {
			return onWorkspaces(c, []string{deref(in.WorkspaceId)})
		}))),
	}
	ops = append(ops, api.NewUpdate(name, "MigrateWorkspace", s.migrateWorkspace, api.On(on(func(c *api.Call, in *workspaces.MigrateWorkspaceInput) []api.Target {
		return append(onWorkspaces(c, []string{deref(in.SourceWorkspaceId)}), s.targets(c, "workspacebundle", []string{deref(in.BundleId)})...)
	}))))
	ops = append(ops, s.directoryOperations()...)
	ops = append(ops, s.bundleOperations()...)
	ops = append(ops, s.ipGroupOperations()...)
	ops = append(ops, s.tagOperations()...)
	ops = append(ops, s.desktopOperations()...)
	ops = append(ops, s.imageOperations()...)
	ops = append(ops, s.aliasOperations()...)
	ops = append(ops, s.signInOperations()...)
	ops = append(ops, s.accountOperations()...)
	api.NameResources(ops, func(c *api.Call, id string) audit.Resource {
		switch prefix, _, _ := strings.Cut(id, "-"); prefix {
		case "ws":
			return audit.Resource{AccountID: c.Account, Type: "AWS::WorkSpaces::Workspace", ARN: resourceARN(c, "workspace", id)}
		case "wsca":
			return audit.Resource{AccountID: c.Account, Type: "AWS::WorkSpaces::ConnectionAlias", ARN: resourceARN(c, "connectionalias", id)}
		}
		return audit.Resource{}
	})
	return ops
}

// on adapts a pure function to a resolver.
func on[In any](f func(c *api.Call, in *In) []api.Target) func(context.Context, *store.Tx, *api.Call, *In) ([]api.Target, error) {
	return func(_ context.Context, _ *store.Tx, c *api.Call, in *In) ([]api.Target, error) { return f(c, in), nil }
}

// targets are the resources of one kind, with their tags as condition keys.
// Source: service authorization reference, "Actions, resources, and condition
// keys for Amazon WorkSpaces".
func (s *Service) targets(c *api.Call, kind string, ids []string) []api.Target {
	tx := s.cfg.Store.Snapshot()
	out := make([]api.Target, 0, len(ids))
	for _, id := range ids {
		t := api.Target{ARN: resourceARN(c, kind, id), Account: c.Account}
		if tags, ok := s.tagsOf(tx, c, id); ok && len(tags) > 0 {
			t.Keys = make(map[string][]string, len(tags))
			for k, v := range tags {
				t.Keys["aws:ResourceTag/"+k] = []string{v}
			}
		}
		out = append(out, t)
	}
	return out
}

// resourceARN is arn:aws:workspaces:REGION:ACCOUNT:KIND/ID.
func resourceARN(c *api.Call, kind, id string) string {
	return fmt.Sprintf("arn:aws:workspaces:%s:%s:%s/%s", c.Region, c.Account, kind, id)
}
