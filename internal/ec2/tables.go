package ec2

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
)

// States of a volume, as the API names them.
const (
	stateCreating  = "creating"
	stateAvailable = "available"
	stateInUse     = "in-use"
	stateDeleting  = "deleting"
	stateError     = "error"
)

// States of an attachment.
const (
	attaching = "attaching"
	attached  = "attached"
	detaching = "detaching"
)

// volume is the record of a volume, under account/region/ID.
type volume struct {
	ID, Account, Region string
	Zone                string // us-west-2a
	SizeGiB             int32
	Type                string
	Iops, Throughput    int32 // 0: the type has none
	SnapshotID          string
	CreateTime          time.Time
	State               string
	// Reason says why the state is error, or why the attachment is not served.
	Reason string `json:",omitempty"`
	Tags   map[string]string

	// Draft volumes are not yet visible: the keys are being checked. The process Owner
	// works on it; when that is dead, the volume is undone.
	Draft bool   `json:",omitempty"`
	Owner string `json:",omitempty"`
	Host  string
	// Token is the client token that the volume was created with.
	Token string `json:",omitempty"`

	Key keyState
	// DefaultKey tells that the key is the AWS managed alias/aws/ebs.
	DefaultKey bool `json:",omitempty"`
	// Anchor is the newest anchor that the data plane has given.
	Anchor []byte `json:",omitempty"`
	// Made: the volume has its place on disk. Image and Snapshot are what it begins with.
	Made  bool   `json:",omitempty"`
	Image string `json:",omitempty"`

	// Source is the snapshot that the volume begins with, until it has been read.
	Source *sourceKey `json:",omitempty"`

	Attachment   *attachment   `json:",omitempty"`
	Modification *modification `json:",omitempty"`
	// Modified are the times of the modifications of the last day.
	Modified     []time.Time `json:",omitempty"`
	AutoEnableIO bool        `json:",omitempty"`
	// Desktop is set for volumes that WorkSpaces manages.
	Desktop *desktop `json:",omitempty"`
}

// sourceKey opens the snapshot that a volume begins with: the snapshot's data
// key, sealed anew for this volume.
type sourceKey struct {
	Record string // table key of the snapshot
	Key    keyState
	Blank  bool `json:",omitempty"` // the snapshot is all zeros
}

// keyState is how the data key of a volume or snapshot is kept.
type keyState struct {
	Encrypted bool   // by a KMS key
	KeyARN    string `json:",omitempty"`
	// Wrapped is the encrypted data key: KMS's ciphertext blob, or the root key's wrap.
	// It is erased before anything else when the volume is deleted.
	Wrapped []byte `json:",omitempty"`
	// Bound is the ARN that Wrapped was made for.
	Bound string `json:",omitempty"`
	// Context is the encryption context of Wrapped.
	Context map[string]string `json:",omitempty"`
	// GrantName is set before the grant is asked for, GrantID once it is known.
	GrantName, GrantID string `json:",omitempty"`
	// Principal is on whose behalf the grant was created.
	Principal *api.Principal `json:",omitempty"`
}

// id names the data key without telling it: the snapshots of a volume, which share its
// data key, have the same, and no others do.
func (k *keyState) id() string {
	h := sha256.Sum256(append([]byte("ec2 data key\x00"), k.Wrapped...))
	return "dek-" + hex.EncodeToString(h[:16])
}

type attachment struct {
	Instance string // i-… or, for a desktop, its WorkSpace's ID
	Device   string
	Since    time.Time
	State    string
	ReadOnly bool `json:",omitempty"`
	// Once tells that the attachment has been served at some time: if it was not, a
	// failure to serve undoes it.
	Once                bool `json:",omitempty"`
	DeleteOnTermination bool `json:",omitempty"`
}

// desktop says what a volume or snapshot is to WorkSpaces.
type desktop struct {
	WorkspaceID    string
	Role           string // root or user
	SIDDirectoryID string
	Image          string `json:",omitempty"` // of a snapshot that is an image: its ID, and nothing else is set
}

func (d *desktop) String() string {
	if d.Image != "" {
		return "the image " + d.Image
	}
	return "the " + d.Role + " volume of WorkSpace " + d.WorkspaceID
}

type modification struct {
	State                              string // modifying, completed, failed
	Message                            string `json:",omitempty"`
	Start, End                         time.Time
	FromSize, FromIops, FromThroughput int32
	FromType                           string
	ToSizeGiB, ToIops, ToThroughput    int32
	ToType                             string
}

// token makes a creation idempotent, under account/region/operation/ClientToken.
type token struct {
	ID   string // of what was made
	Hash []byte // of the parameters
}

// settings of an account in a region.
type settings struct {
	EncryptByDefault bool
	DefaultKey       string // ARN, "" for alias/aws/ebs
	// BlockPublicSnapshots is "" when snapshots may be shared with everybody.
	BlockPublicSnapshots types.SnapshotBlockPublicAccessState `json:",omitempty"`
}

// snapshot is the record of a snapshot, under account/region/ID.
type snapshot struct {
	ID, Account, Region string
	VolumeID            string
	SizeGiB             int32
	Description         string
	StartTime           time.Time
	CompletionTime      time.Time
	State               string // pending, completed, error
	Reason              string `json:",omitempty"`
	Progress            int
	Tags                map[string]string
	Bytes               int64  // held
	Anchor              []byte `json:",omitempty"`
	Blank               bool   `json:",omitempty"` // of a volume never attached: all zeros, no data
	Key                 keyState
	Draft               bool     `json:",omitempty"`
	Owner               string   `json:",omitempty"`
	Deleting            bool     `json:",omitempty"`
	Shared              []string `json:",omitempty"` // accounts that may create volumes; "all"
	Host                string
	Token               string `json:",omitempty"` // of StartSnapshot
	// Direct is set for snapshots written block by block.
	Direct *direct `json:",omitempty"`
	// DefaultKey tells that the key is the AWS managed alias/aws/ebs, which cannot be shared.
	DefaultKey bool          `json:",omitempty"`
	Lock       *snapshotLock `json:",omitempty"`
	Bin        *recycled     `json:",omitempty"` // not nil: in the recycle bin
	// Desktop is set for snapshots that WorkSpaces takes of its volumes, and for its images.
	Desktop *desktop `json:",omitempty"`
}

// host is this host's identity, made once, under its name.
type host struct {
	Seed  string // random; instance IDs derive from it
	Since time.Time
}

// tagSet holds the tags of a resource that has no record of its own (an instance,
// a VPC, a subnet), under account/region/ID.
type tagSet struct{ Tags map[string]string }

func (v *volume) key() string { return key(v.Account, v.Region, v.ID) }
func (v *volume) arn() string { return arnOf(v.Account, v.Region, "volume", v.ID) }
func (v *volume) size() int64 { return int64(v.SizeGiB) << 30 }

func (s *Service) dir(v *volume) string    { return filepath.Join(s.cfg.VolumeDir, v.ID) }
func (s *Service) socket(v *volume) string { return filepath.Join(s.cfg.SocketDir, v.ID+".sock") }

// vhostSocket is where a virtual machine monitor finds the volume by shared memory.
func (s *Service) vhostSocket(v *volume) string { return filepath.Join(s.cfg.SocketDir, v.ID+".vhost") }

// serial is a disk's serial number in a guest: its role in a desktop, else the volume ID as EBS gives it (without the hyphen).
func serial(v *volume) string {
	if v.Desktop != nil {
		return v.Desktop.Role
	}
	return strings.Replace(v.ID, "-", "", 1)
}

func (n *snapshot) key() string                   { return key(n.Account, n.Region, n.ID) }
func (n *snapshot) arn() string                   { return "arn:aws:ec2:" + n.Region + "::snapshot/" + n.ID }
func (s *Service) snapshotDir(n *snapshot) string { return filepath.Join(s.cfg.VolumeDir, n.ID) }
