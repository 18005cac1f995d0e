package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sealdesk/sealdesk/internal/ids"
)

// A fence finds out what became of a commit whose answer was lost, which happens
// whenever a member of an external cluster dies: etcd may have done it, may still do it, or
// never will. Guessing would create things twice or call a done thing failed.
//
// Every commit goes through a slot, which no other commit uses meanwhile: it
// asks that the fence's key has not moved, and writes a number of its own to the slot's
// key. When the answer is lost, the fence's key is written anew. From then on the
// commit can no longer happen, and the slot's key says whether it has.
//
//	/sealdesk-node/<node>          the fence: its ModRevision counts
//	/sealdesk-node/<node>/<slot>   the number of the last commit of the slot
type fence struct {
	client *clientv3.Client
	log    *slog.Logger
	key    string
	rev    atomic.Int64 // ModRevision of key, as far as known

	mu    sync.Mutex // guards what follows, and writing the fence
	free  []string   // slots in no use
	slots int        // made so far
}

const (
	resolveTimeout = 30 * time.Second
	attemptTimeout = 3 * time.Second
)

// newFence makes the fence of this node, upon which a commit of an earlier process
// of the node that is still under way can no longer happen.
func newFence(ctx context.Context, c *clientv3.Client, cfg Config) (*fence, error) {
	host, _ := os.Hostname()
	sum := sha256.Sum256([]byte(host + "\x00" + cfg.DataDir))
	f := &fence{client: c, log: cfg.Logger, key: "/sealdesk-node/" + hex.EncodeToString(sum[:8])}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	return f, f.raise(ctx)
}

// raise writes the fence anew, however often that takes.
func (f *fence) raise(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return persist(ctx, func(ctx context.Context) error {
		resp, err := f.client.Put(ctx, f.key, "")
		if err == nil {
			f.saw(resp.Header.Revision)
		}
		return err
	})
}

// saw notes that the fence is at rev, or further on.
func (f *fence) saw(rev int64) {
	for old := f.rev.Load(); rev > old && !f.rev.CompareAndSwap(old, rev); old = f.rev.Load() {
	}
}

func (f *fence) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.free); n > 0 {
		slot := f.free[n-1]
		f.free = f.free[:n-1]
		return slot
	}
	f.slots++
	return f.key + "/" + strconv.Itoa(f.slots)
}

func (f *fence) give(slot string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, slot)
}

// commit is a transaction that has happened, or has not and will not, when it
// returns without error. rev is the revision that tells.
func (f *fence) commit(ctx context.Context, cmps []clientv3.Cmp, ops []clientv3.Op) (ok bool, rev int64, err error) {
	slot, number := f.take(), ids.UUID()
	cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(f.key), "=", f.rev.Load()))
	ops = append(ops, clientv3.OpPut(slot, number))
	// A client that hangs up leaves no doubt behind either.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTimeout)
	defer cancel()
	attempt, stop := context.WithTimeout(ctx, attemptTimeout)
	resp, err := f.client.Txn(attempt).If(cmps...).Then(ops...).Else(clientv3.OpGet(f.key)).Commit()
	stop()
	switch {
	case err == nil:
		f.give(slot)
		if !resp.Succeeded {
			for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
				f.saw(kv.ModRevision)
			}
		}
		return resp.Succeeded, resp.Header.Revision, nil
	case !doubtful(err):
		f.give(slot)
		return false, 0, err
	}
	lost := err
	if err := f.raise(ctx); err != nil { // the slot stays taken: what it will say is not known
		return false, 0, fmt.Errorf("what became of it is not known: %w", errors.Join(lost, err))
	}
	err = persist(ctx, func(ctx context.Context) error {
		got, err := f.client.Get(ctx, slot)
		if err != nil {
			return err
		}
		ok, rev = false, got.Header.Revision
		if len(got.Kvs) == 1 && string(got.Kvs[0].Value) == number {
			ok, rev = true, got.Kvs[0].ModRevision
		}
		return nil
	})
	f.give(slot)
	f.log.Info("the answer of etcd to a commit was lost", "err", lost, "committed", ok, "resolved", err == nil)
	return ok, rev, err
}

// persist runs do until etcd answers or ctx ends.
func persist(ctx context.Context, do func(ctx context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := do(attempt)
		cancel()
		if err == nil || !doubtful(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// doubtful reports whether, after err, what was asked may have been done.
func doubtful(err error) bool {
	code := status.Code(err)
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		code = e.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.OutOfRange, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.NotFound, codes.Unimplemented:
		return false
	}
	return true
}
