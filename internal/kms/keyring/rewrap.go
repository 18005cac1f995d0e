package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
)

// Field is one value in a record that Wrap made, and what it was wrapped with.
type Field struct {
	Purpose string
	AAD     []byte
	Value   *[]byte
}

// Holder has records with wrapped values in the store. Holds makes one of a table;
// package audit, which is below this one, is one by itself.
type Holder interface {
	// Rewrap replaces every value that is stale by what rewrap makes of it.
	Rewrap(ctx context.Context, stale func(wrapped []byte) bool, rewrap func(purpose string, wrapped, aad []byte) ([]byte, error)) error
}

type holder[T any] struct {
	store  *store.Store
	table  *store.Table[T]
	fields func(key string, v *T) []Field
}

// Holds declares the wrapped values of a table's records. A value of length 0 is none.
func Holds[T any](s *store.Store, t *store.Table[T], fields func(key string, v *T) []Field) Holder {
	return &holder[T]{s, t, fields}
}

// perTransaction bounds the records that one transaction wraps anew.
const perTransaction = 32

func (h *holder[T]) Rewrap(ctx context.Context, stale func([]byte) bool, rewrap func(string, []byte, []byte) ([]byte, error)) error {
	var keys []string
	h.table.Scan(h.store.Snapshot(), "", "", func(key string, v *T) bool {
		for _, f := range h.fields(key, v) {
			if stale(*f.Value) {
				keys = append(keys, key)
				break
			}
		}
		return true
	})
	var errs []error
	for len(keys) > 0 && ctx.Err() == nil {
		n := min(perTransaction, len(keys))
		err := h.store.Update(ctx, func(tx *store.Tx) error {
			for _, key := range keys[:n] {
				v := h.table.Edit(tx, key)
				if v == nil {
					continue
				}
				changed := false
				for _, f := range h.fields(key, v) {
					if !stale(*f.Value) {
						continue
					}
					anew, err := rewrap(f.Purpose, *f.Value, f.AAD)
					if err != nil {
						// One record that does not open must not keep the others.
						errs = append(errs, fmt.Errorf("%s: %w", key, err))
						continue
					}
					*f.Value, changed = anew, true
				}
				if changed {
					if err := h.table.Put(tx, key, v); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		keys = keys[n:]
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// stale tells a value that an older key wrapped.
func (r *Ring) stale(wrapped []byte) bool {
	id, ok := wrappedUnder(wrapped)
	if !ok {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[id] != nil && id != r.files[len(r.files)-1].id()
}

func (r *Ring) rewrap(purpose string, wrapped, aad []byte) ([]byte, error) {
	plain, err := r.Unwrap(purpose, wrapped, aad)
	if err != nil {
		return nil, err
	}
	defer plain.Wipe()
	return r.Wrap(purpose, plain, aad)
}

// Run ends rotations, until ctx ends: it wraps anew what older keys wrapped, then
// forgets them and tells destroyed. Run it on one server of a cluster at a time.
func (r *Ring) Run(ctx context.Context, st *store.Store, holders []Holder, log *slog.Logger, destroyed func(ids []string)) {
	for ctx.Err() == nil {
		again := 24 * time.Hour
		if older := r.older(); len(older) > 0 {
			if err := r.finish(ctx, st, holders, older); err != nil && ctx.Err() == nil {
				log.Error("the rotation of the root key could not be finished; the root key of before is kept, and it is tried again", "err", err)
				again = 10 * time.Second
			} else if err == nil {
				ids := make([]string, len(older))
				for i, id := range older {
					ids[i] = id.String()
				}
				log.Info("everything is wrapped under the new root key; the root key of before is destroyed", "destroyed", ids)
				destroyed(ids)
			}
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-time.After(again):
		}
	}
}

func (r *Ring) finish(ctx context.Context, st *store.Store, holders []Holder, older []ID) error {
	for _, h := range holders {
		if err := h.Rewrap(ctx, r.stale, r.rewrap); err != nil {
			return err
		}
	}
	var needles [][]byte
	for _, id := range older {
		needles = append(needles, needle(id))
	}
	// From here no transaction can bring back a value that was wrapped before the
	// rotation and not stored yet: it is run again, and wraps under the new key.
	st.Forbid(needles)
	found, first := 0, ""
	_, err := st.Each(ctx, func(rec store.Record) error {
		for _, n := range needles {
			if bytes.Contains(rec.Value, n) {
				if found++; found == 1 {
					first = rec.Key
				}
				return nil
			}
		}
		return nil
	})
	if err == nil && found > 0 {
		err = fmt.Errorf("%d records hold values under the root key of before, the first is %s", found, first)
	}
	if err != nil {
		st.Forbid(nil)
		return err
	}
	for _, id := range older {
		if err := r.forget(id); err != nil {
			return err
		}
	}
	// What was wrapped under the old keys goes from the store's files too.
	return st.Update(ctx, st.Erase)
}
