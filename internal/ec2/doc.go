// Package ec2 is the control plane of EBS: volumes, snapshots, encryption by
// default, tags, and the little of instances, zones and networks that clients of
// volumes ask for. It keeps records and makes the calls to KMS; bytes are sealed
// and served by the data plane (Plane), a process of its own.
//
// # A volume and its key
//
// Every volume has a data key of 64 random bytes of its own, and no volume is
// ever written in clear. How the data key is kept depends on what was asked for:
//
//   - Encrypted: KMS makes the data key. CreateVolume checks the KMS key with the
//     caller's own permissions (DescribeKey), creates a grant for EBS with the
//     caller's own permissions (CreateGrant, forwarded, named after the volume,
//     constrained to the volume's encryption context), and asks KMS, as EBS under
//     that grant, for a data key (GenerateDataKeyWithoutPlaintext, 64 bytes). Only the
//     encrypted data key comes back; it is stored with the volume.
//   - Not encrypted: the API says Encrypted=false, as AWS does. The data on disk is
//     sealed all the same, under a data key that the root key wraps
//     (keyring.Root, purpose "ec2/volume-key", bound to the volume's ARN). No KMS key
//     guards such a volume: whoever may attach it can read it.
//
// The encryption context is exactly {"aws:ebs:id": "vol-…"}, and for a volume that
// WorkSpaces has made also "aws:workspaces:sid-directoryid".
//
// AttachVolume sends the encrypted data key to KMS (Decrypt, as EBS under the
// grant), hands the plaintext to the data plane over its socket and wipes it here;
// the volume's place on disk is made at its first attach, so that creating a
// volume never needs its plaintext key. DetachVolume has the data plane drop the key.
// DeleteVolume destroys the encrypted data key first, then the data, then retires
// the grant. A key that is disabled, or a grant that is revoked, does not touch an
// attached volume; the next attach fails and says why.
//
// # Failures
//
// AWS checks the key after it has answered, and lets a volume vanish whose key
// does not serve. Here the key is checked before the answer, so that a wrong key
// is an error of the call and leaves nothing behind: no volume, no grant. The codes
// are those of the family EC2 reports for instances, with the KMS exception and its
// reason in the message:
//
//	InvalidKMSKey.NotFound      no such key or alias, or of another region
//	InvalidKMSKey.InvalidState  disabled, pending deletion or import, unavailable
//	InvalidKMSKey.InvalidUsage  asymmetric or HMAC
//	UnauthorizedOperation       the caller (or EBS, its grant revoked) may not use the key
//
// What fails after the answer stays visible: the attachment is in state attaching,
// with the reason as an event of DescribeVolumeStatus. Config.StrictAWS restores what
// AWS does when the key is refused: CreateVolume answers with a volume in state
// creating, which then does not exist.
//
// # Answers
//
// Most work is done when its call is answered. The answer still shows the state that EBS
// documents for it (creating, attaching, modifying; pending for a snapshot); Describe shows
// what is.
//
// # Crash safety
//
// Every step is recorded before it is taken, and Run completes or undoes what a
// process that died has left: a volume under creation is undone (nobody was
// answered), a grant that was asked for and not noted is found by its name
// and retired, attaching, detaching and deleting are completed. Run also compares
// what should be attached with what the data plane serves: it adopts what is served
// after a restart of this process, and after a restart of the data plane fetches
// each key again through KMS, retrying while KMS refuses.
//
// # Places
//
// A region has two availability zones, a and b, and one default VPC with a
// subnet in each. They are records, not networks. The host is in zone a and
// shows in each account and region as one running instance, to which volumes of
// zone a can be attached: they are then served over NBD on the unix socket
// <sockets>/<volume ID>.sock of the host.
//
// # Snapshots
//
// A snapshot is a sealed copy of the volume's data at one moment, sharing the volume's
// data key as AWS's do. See snapshots.go.
package ec2
