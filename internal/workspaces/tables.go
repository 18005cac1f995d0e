package workspaces

import (
	"time"

	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
)

// task is what the reconciler has to do for a WorkSpace.
type task string

const (
	taskNone      task = ""
	taskCreate    task = "create"
	taskStart     task = "start"
	taskStop      task = "stop"
	taskReboot    task = "reboot"
	taskRebuild   task = "rebuild"
	taskRestore   task = "restore"
	taskRecover   task = "recover" // the machine was lost: bring it up again
	taskTerminate task = "terminate"
	taskImage     task = "image"   // keep the root volume as ImageID
	taskMigrate   task = "migrate" // become the WorkSpace Target
)

// workspace is the stored record of a WorkSpace, under account/region/id.
type workspace struct {
	Account, Region, ID string
	DirectoryID         string
	UserName            string // sAMAccountName
	SID                 string
	BundleID            string
	ComputerName        string
	SubnetID            string

	KeyRef      string // as the caller named it, shown by DescribeWorkspaces
	KeyARN      string // of the key itself; empty when nothing is encrypted
	EncryptRoot bool
	EncryptUser bool
	GrantID     string // WorkSpaces' own grant on the key

	RootGiB, UserGiB int
	Compute          wstypes.Compute
	RunningMode      wstypes.RunningMode
	AutoStopMinutes  int
	Protocols        []wstypes.Protocol

	State        wstypes.WorkspaceState
	ErrorCode    string
	ErrorMessage string

	Task      task
	Down      bool      // of a reboot, rebuild, recovery or image: the machine is already down and detached
	ImageID   string    `json:",omitempty"` // of an image: the one to make
	Target    *target   `json:",omitempty"` // of a migration
	Stopped   bool      `json:",omitempty"` // of an image: the WorkSpace was stopped, and is again afterwards
	Progress  string    // what the task is doing, for people
	Attempts  int       // how often the task has failed in a row
	NotBefore time.Time // when the task may be tried (again)

	Caller api.Principal // who launched it: grants are made in this name

	RootVolume, UserVolume string

	// The newest snapshots of the volumes, "" for none, and when the next are due.
	RootSnapshot, UserSnapshot     string    `json:",omitempty"`
	RootSnapshotAt, UserSnapshotAt time.Time `json:",omitzero"`
	NextSnapshot                   time.Time `json:",omitzero"`
	Growth                         *growth   `json:",omitempty"`

	Created, StateSince time.Time
	Connected           bool      // a user is connected
	LastConnected       time.Time // zero: never
	LastActive          time.Time // start or last disconnect: what AUTO_STOP counts from

	Tags map[string]string
}

// target is what a WorkSpace becomes by a migration.
type target struct{ ID, BundleID string }

func key(account, region, id string) string { return account + "/" + region + "/" + id }

func (w *workspace) key() string { return key(w.Account, w.Region, w.ID) }

// userKey is how one user of one directory is found; the SID makes it so.
func userKey(account, region, directoryID, sid string) string {
	return account + "/" + region + "/" + directoryID + "/" + sid
}

// sidDirectoryID is the value of aws:workspaces:sid-directoryid. The brackets
// are literal.
func (w *workspace) sidDirectoryID() string { return "[" + w.SID + "]@[" + w.DirectoryID + "]" }

// encrypted reports whether a key is in use at all.
func (w *workspace) encrypted() bool { return w.EncryptRoot || w.EncryptUser }

// setState changes the state and, when reason is empty, clears the error.
func (w *workspace) setState(now time.Time, st wstypes.WorkspaceState, code, reason string) {
	if w.State != st {
		w.StateSince = now
	}
	w.State, w.ErrorCode, w.ErrorMessage = st, code, reason
}

// registration is a directory registered with WorkSpaces, under account/region/d-….
type registration struct {
	Account, Region, ID string
	SubnetIDs           []string
	RegistrationCode    string
	Tenancy             wstypes.Tenancy
	State               wstypes.WorkspaceDirectoryState
	Creation            creationProperties
	Access              map[string]string // device type → ALLOW | DENY
	SelfService         map[string]string // permission → ENABLED | DISABLED
	IPGroups            []string
	Streaming           map[string]string // user setting → DISABLED; absent: ENABLED
	RelayState          string            `json:",omitempty"`
	UserAccessURL       string            `json:",omitempty"`
	Tags                map[string]string
}

type creationProperties struct {
	CustomSecurityGroup string
	DefaultOU           string
	InternetAccess      bool
	MaintenanceMode     bool
	LocalAdministrator  bool
}

// bundle is a bundle: what a desktop is made of. The ones we provide are in code.
type bundle struct {
	ID, Name, Description, Owner string
	Compute                      wstypes.Compute
	RootGiB, UserGiB             int
	ImageID                      string
	Created, Updated             time.Time
	Tags                         map[string]string
}

// ipGroup is a list of address ranges that may connect.
type ipGroup struct {
	ID, Name, Description string
	Rules                 []ipRule
	Tags                  map[string]string
}

type ipRule struct{ CIDR, Description string }
