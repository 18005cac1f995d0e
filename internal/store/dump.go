package store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Record is a stored record as it lies in etcd: its key without /sealdesk/, and the
// bytes that the package doc describes.
type Record struct {
	Key   string
	Value []byte
}

// page bounds how many records one request to etcd reads.
const page = 1000

// Each calls f with every record as of one moment, in the order of keys, read from
// etcd itself: records of tables that nobody has declared too. The revision is that
// moment's.
func (s *Store) Each(ctx context.Context, f func(Record) error) (revision int64, err error) {
	from := root
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(root)), clientv3.WithLimit(page), clientv3.WithRev(revision))
		if err != nil {
			return 0, fmt.Errorf("read the state from etcd: %w", err)
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			if err := f(Record{string(kv.Key[len(root):]), kv.Value}); err != nil {
				return 0, err
			}
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return revision, nil
		}
	}
}

// Fill writes records into a store that has none. Call it between Open and Start.
func (s *Store) Fill(ctx context.Context, records iter.Seq2[Record, error]) error {
	if s.started {
		return errors.New("store: Fill after Start")
	}
	resp, err := s.client.Get(ctx, root, clientv3.WithPrefix(), clientv3.WithLimit(1))
	if err != nil {
		return fmt.Errorf("look into the store: %w", err)
	}
	if len(resp.Kvs) > 0 {
		return errors.New("the store holds records already")
	}
	const maxBytes = 512 << 10 // etcd takes requests of 1.5 MiB
	var ops []clientv3.Op
	size := 0
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := s.client.Txn(ctx).Then(ops...).Commit()
		ops, size = ops[:0], 0
		return err
	}
	for r, err := range records {
		if err != nil {
			return err
		}
		if size+len(r.Key)+len(r.Value) > maxBytes || len(ops) == 100 {
			if err := flush(); err != nil {
				return fmt.Errorf("write records: %w", err)
			}
		}
		ops = append(ops, clientv3.OpPut(root+r.Key, string(r.Value)))
		size += len(r.Key) + len(r.Value)
	}
	if err := flush(); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}
