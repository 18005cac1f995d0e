// Package ebs is the EBS direct APIs: snapshots read, compared and written block by block
// (rest-json, 2019-11-02). It promises:
//
//   - Blocks are 512 KiB. What is read carries its SHA-256; what is written must.
//   - Reading needs, besides ebs:GetSnapshotBlock and its like, the caller's own
//     permission to decrypt with the snapshot's KMS key; it is asked for when a session
//     begins and again every few minutes.
//   - A block token names a snapshot and a block, and expires after a week. It is no
//     permission by itself: each call is authorised for the snapshot.
//
// Source: EBS User Guide, "Use EBS direct APIs to access the contents of an EBS
// snapshot"; EBS direct APIs Reference.
//
// # Block token, version 1
//
//	base64( version 1 byte = 1 | index u32 | expiry u64, Unix seconds | SHA-256(snapshot ID, index, expiry) 16 bytes )
package ebs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	blockSize = 512 << 10
	tokenLife = 7 * 24 * time.Hour
	// scanBlocks bounds the blocks that one page of ListChangedBlocks reads: 256 MiB.
	scanBlocks = 512
)

// Snapshots is what the direct APIs ask of the control plane of snapshots. Errors are
// EC2's, and translated here.
type Snapshots interface {
	// SnapshotInfo tells of a snapshot that the caller may read.
	SnapshotInfo(c *api.Call, id string) (sizeGiB int32, volumeID, state string, written bool, err error)
	// ReadSnapshot opens a snapshot for reading; a nil device is all zeros.
	ReadSnapshot(ctx context.Context, c *api.Call, id string) (dev block.Device, release func(), err error)
	StartSnapshot(ctx context.Context, c *api.Call, in *ebs.StartSnapshotInput) (*ebs.StartSnapshotOutput, error)
	WriteSnapshotBlock(ctx context.Context, c *api.Call, id string, index int32, data []byte) error
	CompleteSnapshot(ctx context.Context, c *api.Call, id string, changed int32, checksum []byte) (state string, err error)
	// DirectTarget is the authorisation target of a snapshot; id "*" for new ones.
	DirectTarget(tx *store.Tx, c *api.Call, id string) api.Target
}

// Service serves the EBS direct APIs.
type Service struct{ snapshots Snapshots }

// New returns the service over the control plane of snapshots.
func New(snapshots Snapshots) *Service { return &Service{snapshots} }

// Operations is the service's part of the operation table.
func (s *Service) Operations() []api.Operation {
	ops := []api.Operation{
		api.NewSteps("ebs", "ListSnapshotBlocks", s.listSnapshotBlocks, api.ReadOnly(), api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ebs.ListSnapshotBlocksInput) ([]api.Target, error) {
			return []api.Target{s.snapshots.DirectTarget(tx, c, aws.ToString(in.SnapshotId))}, nil
		})),
		api.NewSteps("ebs", "ListChangedBlocks", s.listChangedBlocks, api.ReadOnly(), api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ebs.ListChangedBlocksInput) ([]api.Target, error) {
			t := []api.Target{s.snapshots.DirectTarget(tx, c, aws.ToString(in.SecondSnapshotId))}
			if in.FirstSnapshotId != nil {
				t = append(t, s.snapshots.DirectTarget(tx, c, *in.FirstSnapshotId))
			}
			return t, nil
		})),
		api.NewSteps("ebs", "GetSnapshotBlock", s.getSnapshotBlock, api.ReadOnly(), api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ebs.GetSnapshotBlockInput) ([]api.Target, error) {
			return []api.Target{s.snapshots.DirectTarget(tx, c, aws.ToString(in.SnapshotId))}, nil
		})),
		api.NewSteps("ebs", "StartSnapshot", s.startSnapshot, api.On(s.onStartSnapshot)),
		api.NewSteps("ebs", "PutSnapshotBlock", s.putSnapshotBlock, api.NoResponseElements(), api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ebs.PutSnapshotBlockInput) ([]api.Target, error) {
			return []api.Target{s.snapshots.DirectTarget(tx, c, aws.ToString(in.SnapshotId))}, nil
		})),
		api.NewSteps("ebs", "CompleteSnapshot", s.completeSnapshot, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ebs.CompleteSnapshotInput) ([]api.Target, error) {
			return []api.Target{s.snapshots.DirectTarget(tx, c, aws.ToString(in.SnapshotId))}, nil
		})),
	}
	api.NameResources(ops, func(c *api.Call, id string) audit.Resource {
		if !strings.HasPrefix(id, "snap-") {
			return audit.Resource{}
		}
		return audit.Resource{AccountID: c.Account, Type: "AWS::EC2::Snapshot", ARN: "arn:aws:ec2:" + c.Region + "::snapshot/" + id}
	})
	return ops
}

// onStartSnapshot: condition keys from the Service Authorization Reference, "Amazon EBS".
func (s *Service) onStartSnapshot(_ context.Context, tx *store.Tx, c *api.Call, in *ebs.StartSnapshotInput) ([]api.Target, error) {
	t := s.snapshots.DirectTarget(tx, c, "*")
	t.Keys = map[string][]string{"ebs:VolumeSize": {strconv.FormatInt(aws.ToInt64(in.VolumeSize), 10)}}
	if in.Description != nil {
		t.Keys["ebs:Description"] = []string{*in.Description}
	}
	if in.ParentSnapshotId != nil {
		t.Keys["ebs:ParentSnapshot"] = []string{*in.ParentSnapshotId}
	}
	for _, g := range in.Tags {
		t.Keys["aws:RequestTag/"+aws.ToString(g.Key)] = []string{aws.ToString(g.Value)}
		t.Keys["aws:TagKeys"] = append(t.Keys["aws:TagKeys"], aws.ToString(g.Key))
	}
	targets := []api.Target{t}
	if in.ParentSnapshotId != nil {
		targets = append(targets, s.snapshots.DirectTarget(tx, c, *in.ParentSnapshotId))
	}
	return targets, nil
}

func invalid(reason types.ValidationExceptionReason, format string, a ...any) error {
	return &types.ValidationException{Message: aws.String(fmt.Sprintf(format, a...)), Reason: reason}
}

// direct translates an error of the control plane.
func direct(err error) error {
	var e smithy.APIError
	if !errors.As(err, &e) {
		return err
	}
	msg := aws.String(e.ErrorMessage())
	switch code := e.ErrorCode(); {
	case code == "InvalidSnapshot.NotFound":
		return &types.ResourceNotFoundException{Message: msg, Reason: types.ResourceNotFoundExceptionReasonSnapshotNotFound}
	case code == "UnauthorizedOperation":
		return &types.AccessDeniedException{Message: msg, Reason: types.AccessDeniedExceptionReasonDependencyAccessDenied}
	case strings.HasPrefix(code, "InvalidKMSKey."):
		return invalid(types.ValidationExceptionReasonInvalidCustomerKey, "%s", *msg)
	case code == "InvalidSnapshotID.Malformed", code == "InvalidParameterValue" && strings.Contains(*msg, "for parameter snapshotId"):
		return invalid(types.ValidationExceptionReasonInvalidSnapshotId, "%s", *msg)
	case code == "IdempotentParameterMismatch":
		return &types.ConflictException{Message: msg}
	case code == "ConcurrentLimitExceeded":
		return &types.ConcurrentLimitExceededException{Message: msg}
	case code == "TagLimitExceeded":
		return invalid(types.ValidationExceptionReasonInvalidTag, "%s", *msg)
	}
	return invalid(types.ValidationExceptionReasonInvalidParameterValue, "%s: %s", e.ErrorCode(), *msg)
}

func tokenSum(snapshot string, head []byte) []byte {
	h := sha256.Sum256(append([]byte("ebs block\x00"+snapshot+"\x00"), head...))
	return h[:16]
}

func blockToken(snapshot string, index int32, expiry time.Time) *string {
	b := binary.BigEndian.AppendUint32([]byte{1}, uint32(index))
	b = binary.BigEndian.AppendUint64(b, uint64(expiry.Unix()))
	return aws.String(base64.StdEncoding.EncodeToString(append(b, tokenSum(snapshot, b)...)))
}

func checkToken(t, snapshot string, index int32, now time.Time) error {
	b, err := base64.StdEncoding.DecodeString(t)
	if err != nil || len(b) != 29 || b[0] != 1 || !bytes.Equal(b[13:], tokenSum(snapshot, b[:13])) || binary.BigEndian.Uint32(b[1:]) != uint32(index) {
		return invalid(types.ValidationExceptionReasonInvalidBlockToken, "The block token is not one of block %d of snapshot %s.", index, snapshot)
	}
	if now.Unix() > int64(binary.BigEndian.Uint64(b[5:])) {
		return invalid(types.ValidationExceptionReasonInvalidBlockToken, "The block token has expired. List the blocks again.")
	}
	return nil
}

// A page token is the index of the next block, bound to the operation and its snapshots.
func pageToken(what string, next int32) *string {
	b := binary.BigEndian.AppendUint32([]byte{2}, uint32(next))
	return aws.String(base64.StdEncoding.EncodeToString(append(b, tokenSum(what, b)...)))
}

func startOf(what string, token *string, starting *int32) (int32, error) {
	if token == nil {
		return aws.ToInt32(starting), nil
	}
	if starting != nil {
		return 0, invalid(types.ValidationExceptionReasonInvalidParameterValue, "StartingBlockIndex and NextToken cannot both be given.")
	}
	b, err := base64.StdEncoding.DecodeString(*token)
	if err != nil || len(b) != 21 || b[0] != 2 || !bytes.Equal(b[5:], tokenSum(what, b[:5])) {
		return 0, invalid(types.ValidationExceptionReasonInvalidPageToken, "The page token is not valid for this call.")
	}
	return int32(binary.BigEndian.Uint32(b[1:])), nil
}

// reader is an open snapshot.
type reader struct {
	id      string
	sizeGiB int32
	volume  string
	dev     block.Device // nil: zeros
	release func()
}

func (r *reader) blocks() int32 { return int32(int64(r.sizeGiB) << 30 / blockSize) }

func (s *Service) open(ctx context.Context, c *api.Call, id string) (*reader, error) {
	size, volume, _, _, err := s.snapshots.SnapshotInfo(c, id)
	if err != nil {
		return nil, direct(err)
	}
	dev, release, err := s.snapshots.ReadSnapshot(ctx, c, id)
	if err != nil {
		return nil, direct(err)
	}
	return &reader{id, size, volume, dev, release}, nil
}

// allocated lists, from index on, blocks that may hold other than zeros, until f returns false.
func (r *reader) allocated(from int32, f func(index int32) bool) error {
	if r.dev == nil {
		return nil
	}
	end := int64(r.sizeGiB) << 30
	next := from // least index not yet reported
	for off := int64(from) * blockSize; off < end; {
		ext, err := r.dev.BlockStatus(off, end-off, 1024)
		if err != nil {
			return fmt.Errorf("block status of %s at %d: %w", r.id, off, err)
		}
		for _, e := range ext {
			off = e.Off + e.Len
			if e.Hole {
				continue
			}
			for i := max(next, int32(e.Off/blockSize)); int64(i)*blockSize < off; i++ {
				next = i + 1
				if !f(i) {
					return nil
				}
			}
		}
	}
	return nil
}

func (r *reader) read(p []byte, index int32) error {
	if r.dev == nil || index >= r.blocks() {
		clear(p)
		return nil
	}
	if _, err := r.dev.ReadAt(p, int64(index)*blockSize); err != nil {
		return fmt.Errorf("read block %d of %s: %w", index, r.id, err)
	}
	return nil
}

func pageSize(n *int32) int {
	if n == nil {
		return 10000
	}
	return int(*n)
}

func (s *Service) listSnapshotBlocks(ctx context.Context, c *api.Call, in *ebs.ListSnapshotBlocksInput) (*ebs.ListSnapshotBlocksOutput, error) {
	id := aws.ToString(in.SnapshotId)
	from, err := startOf("list "+id, in.NextToken, in.StartingBlockIndex)
	if err != nil {
		return nil, err
	}
	r, err := s.open(ctx, c, id)
	if err != nil {
		return nil, err
	}
	defer r.release()
	expiry := c.Time.Add(tokenLife)
	out := &ebs.ListSnapshotBlocksOutput{BlockSize: aws.Int32(blockSize), Blocks: []types.Block{}, ExpiryTime: aws.Time(expiry), VolumeSize: aws.Int64(int64(r.sizeGiB))}
	limit := pageSize(in.MaxResults)
	err = r.allocated(from, func(i int32) bool {
		if len(out.Blocks) == limit {
			out.NextToken = pageToken("list "+id, i)
			return false
		}
		out.Blocks = append(out.Blocks, types.Block{BlockIndex: aws.Int32(i), BlockToken: blockToken(id, i, expiry)})
		return true
	})
	return out, err
}

// listChangedBlocks compares two snapshots of one volume by content. A page may end early,
// with a token, when it has read as much as one call should.
func (s *Service) listChangedBlocks(ctx context.Context, c *api.Call, in *ebs.ListChangedBlocksInput) (*ebs.ListChangedBlocksOutput, error) {
	first, second := aws.ToString(in.FirstSnapshotId), aws.ToString(in.SecondSnapshotId)
	what := "changed " + first + " " + second
	from, err := startOf(what, in.NextToken, in.StartingBlockIndex)
	if err != nil {
		return nil, err
	}
	b, err := s.open(ctx, c, second)
	if err != nil {
		return nil, err
	}
	defer b.release()
	a := &reader{id: "none", sizeGiB: b.sizeGiB, release: func() {}}
	if first != "" {
		if a, err = s.open(ctx, c, first); err != nil {
			return nil, err
		}
		if a.volume != b.volume {
			a.release()
			return nil, invalid(types.ValidationExceptionReasonUnrelatedSnapshots, "Snapshots %s (of %s) and %s (of %s) are not of one volume.", first, a.volume, second, b.volume)
		}
	}
	defer a.release()
	expiry := c.Time.Add(tokenLife)
	out := &ebs.ListChangedBlocksOutput{BlockSize: aws.Int32(blockSize), ChangedBlocks: []types.ChangedBlock{}, ExpiryTime: aws.Time(expiry), VolumeSize: aws.Int64(int64(b.sizeGiB))}
	// The candidates: allocated in either, at most a page's worth of reading.
	candidates := map[int32]bool{}
	last := b.blocks()
	for _, r := range []*reader{a, b} {
		n := 0
		err := r.allocated(from, func(i int32) bool {
			if i >= last {
				return false
			}
			if n == scanBlocks {
				last = i
				return false
			}
			n++
			candidates[i] = true
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	limit := pageSize(in.MaxResults)
	pa, pb := make([]byte, blockSize), make([]byte, blockSize)
	zeros := make([]byte, blockSize)
	for i := from; i < last; i++ {
		if !candidates[i] {
			continue
		}
		if len(out.ChangedBlocks) == limit {
			last = i
			break
		}
		if err := errors.Join(a.read(pa, i), b.read(pb, i)); err != nil {
			return nil, err
		}
		if bytes.Equal(pa, pb) {
			continue
		}
		ch := types.ChangedBlock{BlockIndex: aws.Int32(i)}
		if first != "" && !bytes.Equal(pa, zeros) {
			ch.FirstBlockToken = blockToken(first, i, expiry)
		}
		if !bytes.Equal(pb, zeros) {
			ch.SecondBlockToken = blockToken(second, i, expiry)
		}
		out.ChangedBlocks = append(out.ChangedBlocks, ch)
	}
	if last < b.blocks() {
		out.NextToken = pageToken(what, last)
	}
	return out, nil
}

func (s *Service) getSnapshotBlock(ctx context.Context, c *api.Call, in *ebs.GetSnapshotBlockInput) (*ebs.GetSnapshotBlockOutput, error) {
	id, index := aws.ToString(in.SnapshotId), aws.ToInt32(in.BlockIndex)
	if err := checkToken(aws.ToString(in.BlockToken), id, index, c.Time); err != nil {
		return nil, err
	}
	r, err := s.open(ctx, c, id)
	if err != nil {
		return nil, err
	}
	defer r.release()
	if index < 0 || index >= r.blocks() {
		return nil, invalid(types.ValidationExceptionReasonInvalidBlock, "Block %d is outside of the snapshot, which has %d blocks.", index, r.blocks())
	}
	p := make([]byte, blockSize)
	if err := r.read(p, index); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(p)
	return &ebs.GetSnapshotBlockOutput{BlockData: io.NopCloser(bytes.NewReader(p)), Checksum: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
		ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256, DataLength: aws.Int32(blockSize)}, nil
}

func (s *Service) startSnapshot(ctx context.Context, c *api.Call, in *ebs.StartSnapshotInput) (*ebs.StartSnapshotOutput, error) {
	// ClientToken, Description, Encrypted, KmsKeyArn, ParentSnapshotId, Tags, Timeout
	// and VolumeSize are the control plane's matter.
	out, err := s.snapshots.StartSnapshot(ctx, c, in)
	if err != nil {
		return nil, direct(err)
	}
	return out, nil
}

func (s *Service) putSnapshotBlock(ctx context.Context, c *api.Call, in *ebs.PutSnapshotBlockInput) (*ebs.PutSnapshotBlockOutput, error) {
	_ = in.Progress // for the caller's own bookkeeping
	if in.ChecksumAlgorithm != types.ChecksumAlgorithmChecksumAlgorithmSha256 {
		return nil, invalid(types.ValidationExceptionReasonInvalidParameterValue, "The checksum algorithm %q is not SHA256.", in.ChecksumAlgorithm)
	}
	if aws.ToInt32(in.DataLength) != blockSize || in.BlockData == nil {
		return nil, invalid(types.ValidationExceptionReasonInvalidBlock, "DataLength is %d; blocks have %d bytes.", aws.ToInt32(in.DataLength), blockSize)
	}
	p := make([]byte, blockSize+1)
	n, err := io.ReadFull(in.BlockData, p)
	if n != blockSize || !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, invalid(types.ValidationExceptionReasonInvalidBlock, "The block has not %d bytes.", blockSize)
	}
	p = p[:blockSize]
	sum := sha256.Sum256(p)
	want, err := base64.StdEncoding.DecodeString(aws.ToString(in.Checksum))
	if err != nil || !bytes.Equal(want, sum[:]) {
		return nil, invalid(types.ValidationExceptionReasonInvalidBlock, "The checksum %s does not match the block, whose SHA-256 is %s.", aws.ToString(in.Checksum), base64.StdEncoding.EncodeToString(sum[:]))
	}
	if err := s.snapshots.WriteSnapshotBlock(ctx, c, aws.ToString(in.SnapshotId), aws.ToInt32(in.BlockIndex), p); err != nil {
		return nil, direct(err)
	}
	return &ebs.PutSnapshotBlockOutput{Checksum: in.Checksum, ChecksumAlgorithm: in.ChecksumAlgorithm}, nil
}

func (s *Service) completeSnapshot(ctx context.Context, c *api.Call, in *ebs.CompleteSnapshotInput) (*ebs.CompleteSnapshotOutput, error) {
	var sum []byte
	if in.Checksum != nil {
		if in.ChecksumAlgorithm != types.ChecksumAlgorithmChecksumAlgorithmSha256 || in.ChecksumAggregationMethod != types.ChecksumAggregationMethodChecksumAggregationLinear {
			return nil, invalid(types.ValidationExceptionReasonInvalidParameterValue, "A checksum needs ChecksumAlgorithm SHA256 and ChecksumAggregationMethod LINEAR.")
		}
		var err error
		if sum, err = base64.StdEncoding.DecodeString(*in.Checksum); err != nil || len(sum) != sha256.Size {
			return nil, invalid(types.ValidationExceptionReasonInvalidParameterValue, "The checksum is not a SHA-256 in base64.")
		}
	}
	state, err := s.snapshots.CompleteSnapshot(ctx, c, aws.ToString(in.SnapshotId), aws.ToInt32(in.ChangedBlocksCount), sum)
	if err != nil {
		return nil, direct(err)
	}
	return &ebs.CompleteSnapshotOutput{Status: types.Status(state)}, nil
}
