package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// Snapshots and clones in an object store name segments of other volumes, their homes. What keeps such a segment there
// is a hold: an object of its home, created by whoever is going to name it, that lists it. It is removed
// only after no generation and no hold names it any more. There is no lock and no counter; every step is one put or one removal, and this is their order.
//
//	naming      plan, holds, then a look whether the source is still what it was, then the generation
//	dropping    the generation without it, or gen-x, or no hold any more; then a look at the home's generation, then at its holds
//
// Whoever names a segment has his hold in place before he finds that its source still names it, and whoever drops
// it looks for holds after his own naming has ended (a hold of somebody with gen-x counts for nothing). So a hold that counts is seen, and
// of two who drop a segment at the same time at least one sees that neither needs it. A hold never changes: one that lists much that is
// dropped is followed by a smaller one, and then removed. A hold of somebody who has neither plan nor generation is a leftover, and removed when it is met.

// collectAt is how many objects that are needed no more a volume lets gather before it looks for holds and removes them.
const collectAt = 16

// garbage is what a volume has dropped in this opening.
type garbage struct {
	own  []string         // names of its own objects
	past map[[8]byte]bool // owners before this opening, whose leftovers have not been looked for yet
	lost map[string]bool  // homes of which it has dropped something
	held map[string]int   // how many objects its hold in a home lists, once known
}

// drop notes what old names and now does not.
func (g *garbage) drop(old, now map[uint64]segObject) {
	for id, o := range old {
		switch {
		case now[id] == o:
		case o.home == "":
			g.own = append(g.own, o.name(id))
		default:
			g.lose(o.home)
		}
	}
}

func (g *garbage) lose(home string) {
	if g.lost == nil {
		g.lost = map[string]bool{}
	}
	g.lost[home] = true
}

// tidy removes what is needed no more. Objects of owners that are not known stay: their generation may be on its way.
func (r *Remote) tidy(ctx context.Context, stale []uint64, closing bool) error {
	var errs []error
	for _, n := range stale {
		errs = append(errs, r.store.Delete(ctx, genName(n)))
	}
	g := &r.garbage
	now := &generation{objects: r.known()}
	if r.claimed && g.past != nil { // not at once: whoever opens a volume waits for its first generation
		names, err := r.store.List(ctx, segPrefix)
		errs = append(errs, err)
		needed := now.at("")
		for _, name := range names {
			if o, ok := ownerOf(name); ok && g.past[o] && !needed[name] {
				g.own = append(g.own, name)
			}
		}
		if err == nil {
			g.past = nil
			closing = true
		}
	}
	if len(g.own) >= collectAt || closing && len(g.own) > 0 {
		err := r.Place.deleteUnheld(ctx, r.ID, g.own)
		if err == nil {
			g.own = nil
		}
		errs = append(errs, err)
	}
	for home := range g.lost {
		errs = append(errs, r.shrinkHold(ctx, home, now.at(home)))
	}
	return errors.Join(errs...)
}

// shrinkHold renews the volume's hold in a home once an eighth of what it lists is needed no more.
func (r *Remote) shrinkHold(ctx context.Context, home string, needed map[string]bool) error {
	g := &r.garbage
	if n, known := g.held[home]; known && len(needed) > 0 && (n-len(needed))*8 < n {
		return nil
	}
	store, err := r.Place(home)
	if err != nil {
		return err
	}
	mine, err := holdsOf(ctx, store, r.ID)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, h := range mine {
		maps.Copy(listed, h.names)
	}
	if g.held == nil {
		g.held = map[string]int{}
	}
	g.held[home] = len(listed)
	if len(needed) > 0 && (len(listed)-len(needed))*8 < len(listed) {
		return nil
	}
	if len(needed) > 0 {
		if err := putHold(ctx, store, r.ID, home, &generation{owner: r.owner, objects: r.known()}); err != nil {
			return err
		}
	}
	for _, h := range mine {
		if err := store.Delete(ctx, h.object); err != nil {
			return err
		}
	}
	maps.DeleteFunc(listed, func(name string, _ bool) bool { return needed[name] })
	if err := r.Place.sweep(ctx, home, slices.Sorted(maps.Keys(listed))); err != nil {
		return err
	}
	g.held[home] = len(needed)
	delete(g.lost, home)
	if len(needed) == 0 {
		r.homes = slices.DeleteFunc(slices.Clone(r.homes), func(h string) bool { return h == home })
	}
	return nil
}

// hold is a hold- object.
type hold struct {
	object string
	holder string
	names  map[string]bool
}

// putHold takes hold of what g names of a home. No two holds have the same name.
func putHold(ctx context.Context, s ObjectStore, holder, home string, g *generation) error {
	part := generation{owner: g.owner, objects: map[uint64]segObject{}}
	for id, o := range g.objects {
		if o.home == home {
			o.home = ""
			part.objects[id] = o
		}
	}
	if err := s.Put(ctx, holdPrefix+holder+"."+ids.Hex("", 16), part.encode()); err != nil {
		return fmt.Errorf("hold segments of %s: %w", home, err)
	}
	return nil
}

func parseHoldName(object string) (h hold, err error) {
	holder, _, ok := strings.Cut(strings.TrimPrefix(object, holdPrefix), ".")
	if !ok || checkHolder(holder) != nil {
		return h, fmt.Errorf("object %q: %w", object, ErrCorrupt)
	}
	return hold{object: object, holder: holder}, nil
}

func readHold(ctx context.Context, s ObjectStore, object string) (hold, error) {
	h, err := parseHoldName(object)
	if err != nil {
		return h, err
	}
	b, err := s.Get(ctx, object)
	if err != nil {
		return h, err
	}
	g, err := decodeGeneration(b)
	if err != nil {
		return h, fmt.Errorf("%s: %w", object, err)
	}
	h.names = g.at("")
	return h, nil
}

// holdsOf are the holds of one holder in a home.
func holdsOf(ctx context.Context, s ObjectStore, holder string) (hs []hold, err error) {
	objects, err := s.List(ctx, holdPrefix+holder+".")
	for _, object := range objects {
		h, err := readHold(ctx, s, object)
		if err != nil && !isNotExist(err) {
			return nil, err
		}
		if err == nil {
			hs = append(hs, h)
		}
	}
	return hs, err
}

// holds are what others hold in a home, as of one moment.
func holds(ctx context.Context, s ObjectStore) ([]hold, error) {
	read := map[string]hold{}
	var before []string
	for range 20 {
		objects, err := s.List(ctx, holdPrefix)
		if err != nil || len(objects) == 0 {
			return nil, err
		}
		// A list of several pages is no moment's state, and one may go before it is read; two lists that are equal are.
		if slices.Equal(objects, before) {
			return slices.Collect(maps.Values(read)), nil
		}
		before = objects
		now := map[string]hold{}
		for _, object := range objects {
			h, ok := read[object]
			if !ok {
				if h, err = readHold(ctx, s, object); isNotExist(err) {
					before = nil
					continue
				} else if err != nil {
					return nil, err
				}
			}
			now[object] = h
		}
		read = now
	}
	return nil, fmt.Errorf("holds change too fast: %w", ErrBusy)
}

// deleteUnheld removes those of a home's objects that nobody else needs.
func (p Place) deleteUnheld(ctx context.Context, home string, names []string) error {
	s, err := p(home)
	if err != nil || len(names) == 0 {
		return err
	}
	hs, err := holds(ctx, s)
	if err != nil {
		return err
	}
	needs := map[string]bool{} // by holder, once asked
	for _, name := range names {
		held := false
		for _, h := range hs {
			if !h.names[name] {
				continue
			}
			if _, asked := needs[h.holder]; !asked {
				var gone bool
				if needs[h.holder], gone, err = p.holder(ctx, h.holder); err != nil {
					return err
				}
				if gone {
					if err := s.Delete(ctx, h.object); err != nil {
						return err
					}
				}
			}
			held = held || needs[h.holder]
		}
		if !held {
			if err := s.Delete(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// holder tells whether somebody's holds count, because he exists or is about to; gone: there is nothing of him. His plan
// is there before his holds, and goes after his generation has come.
func (p Place) holder(ctx context.Context, id string) (counts, gone bool, err error) {
	s, err := p(id)
	if err != nil {
		return false, false, err
	}
	plan, err := s.List(ctx, planName)
	if err != nil {
		return false, false, err
	}
	all, dead, err := generations(ctx, s)
	some := len(plan)+len(all) > 0
	return some && !dead, !some && !dead, err
}

// sweep removes those of a home's objects that neither it nor anybody else needs any more. The caller has ended his own naming.
func (p Place) sweep(ctx context.Context, home string, names []string) error {
	s, err := p(home)
	if err != nil {
		return err
	}
	// In this order: what its generation names no more is held by nobody who is not seen afterwards.
	_, b, err := newest(ctx, s)
	switch {
	case errors.Is(err, errDestroyed):
	case err != nil:
		return err
	case b == nil: // destroyed: all that is left there is held, or garbage
		if names, err = s.List(ctx, segPrefix); err != nil {
			return err
		}
	default:
		g, err := decodeGeneration(b)
		if err != nil {
			return fmt.Errorf("newest generation of %s: %w", home, err)
		}
		needed := g.at("")
		names = slices.DeleteFunc(names, func(name string) bool { return needed[name] })
	}
	return p.deleteUnheld(ctx, home, names)
}

// register takes hold of all that g names, for a holder that is about to exist. unchanged is asked once the holds are there.
func (p Place) register(ctx context.Context, holder string, g *generation, unchanged func(context.Context) error) error {
	s, err := p(holder)
	if err != nil {
		return err
	}
	if err := s.Put(ctx, planName, g.encode()); err != nil {
		if errors.Is(err, ErrObjectExists) {
			return fmt.Errorf("%s in the object store: %w", holder, ErrExists)
		}
		return fmt.Errorf("put plan: %w", err)
	}
	all, dead, err := generations(ctx, s)
	if err != nil {
		return err
	}
	if dead || len(all) > 0 {
		if err := s.Delete(ctx, planName); err != nil {
			return err
		}
		return fmt.Errorf("%s in the object store: %w", holder, ErrExists)
	}
	for _, home := range g.homes() {
		hs, err := p(home)
		if err != nil {
			return err
		}
		if err := putHold(ctx, hs, holder, home, g); err != nil {
			return err
		}
	}
	return unchanged(ctx)
}

// abroad are the objects as another holder names them.
func abroad(objects map[uint64]segObject, home string) map[uint64]segObject {
	m := make(map[uint64]segObject, len(objects))
	for id, o := range objects {
		if o.home == "" {
			o.home = home
		}
		m[id] = o
	}
	return m
}

// snapshot makes a snapshot of the state that m describes in the store. It is durable there on return.
func (r *Remote) snapshot(id string, m *manifest, key *secret.Bytes) (_ Anchor, err error) {
	r.pub.Lock()
	defer r.pub.Unlock()
	if err := checkHolder(id); err != nil {
		return Anchor{}, err
	}
	if r.fenced {
		return Anchor{}, ErrFenced
	}
	if r.version != m.version {
		return Anchor{}, fmt.Errorf("%w: %w", ErrStoreBehind, r.Lag())
	}
	b := m.encode()
	m.mac = manifestMAC(key, m.vol, b)
	g := &generation{manifest: append(b, m.mac[:]...), owner: r.owner, objects: abroad(r.known(), r.ID)}
	ctx, cancel := r.context()
	defer cancel()
	defer func() {
		if err != nil && !errors.Is(err, ErrExists) {
			err = errors.Join(err, r.undo(id))
		}
	}()
	err = r.Place.register(ctx, id, g, func(ctx context.Context) error {
		all, dead, err := generations(ctx, r.store)
		if err == nil && (dead || len(all) == 0 || all[len(all)-1] != r.gen) {
			return ErrFenced
		}
		return err
	})
	if err != nil {
		return Anchor{}, err
	}
	s, err := r.Place(id)
	if err != nil {
		return Anchor{}, err
	}
	if err := s.Put(ctx, genName(1), g.encode()); err != nil {
		return Anchor{}, fmt.Errorf("put snapshot: %w", err)
	}
	if err := s.Delete(ctx, planName); err != nil {
		r.Logger.Warn("the plan of a snapshot stays", "snapshot", id, "err", err)
	}
	return Anchor{m.version, m.mac}, nil
}

// undo removes what was not completed; when the store cannot be reached it stays until it is destroyed.
func (r *Remote) undo(id string) error {
	ctx, cancel := r.context()
	defer cancel()
	return DestroyRemote(ctx, r.Place, id)
}

// scratchName is a file in the cache of a clone for reading: the generation that it has not in the store.
const scratchName = remoteName + ".scratch"

// attachScratch makes the cache a clone for reading, if it is one.
func (r *Remote) attachScratch() error {
	b, err := os.ReadFile(filepath.Join(r.Dir, scratchName))
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	g, err := decodeGeneration(b)
	if err != nil {
		return fmt.Errorf("%s: %w", scratchName, err)
	}
	r.scratch = true
	r.setObjects(g.objects)
	return nil
}

// remoteSource is what the store has of a clone's source.
type remoteSource struct {
	id  string
	s   ObjectStore
	num uint64
	gen *generation
}

// source finds a clone's source in the store; nil when it is not there.
func (r *Remote) source(id string) (*remoteSource, error) {
	if id == "" {
		return nil, nil
	}
	s, err := r.Place(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := r.context()
	defer cancel()
	n, b, err := newest(ctx, s)
	if err != nil || n == 0 {
		return nil, err
	}
	g, err := decodeGeneration(b)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", genName(n), id, err)
	}
	return &remoteSource{id, s, n, g}, nil
}

// unchanged finds that a source is as it was read.
func (src *remoteSource) unchanged(ctx context.Context) error {
	all, dead, err := generations(ctx, src.s)
	switch {
	case err != nil:
		return err
	case dead || len(all) == 0:
		return fmt.Errorf("%s was destroyed: %w", src.id, fs.ErrNotExist)
	case all[len(all)-1] != src.num:
		return fmt.Errorf("%s was opened meanwhile: %w", src.id, ErrBusy)
	}
	return nil
}

// clone makes the volume of manifest n, which begins as the source, with the objects of the source.
func (r *Remote) clone(n *manifest, key *secret.Bytes, src *remoteSource, scratch bool) (_ Anchor, err error) {
	unlock, err := r.Lock()
	if err != nil {
		return Anchor{}, err
	}
	defer unlock()
	names, err := r.List()
	if err != nil {
		return Anchor{}, err
	}
	if r.gen != 0 || !slices.Equal(names, []string{lockName}) {
		return Anchor{}, fmt.Errorf("%s: %w", r.ID, ErrExists)
	}
	g := &generation{owner: r.owner, objects: abroad(src.gen.objects, src.id)}
	if scratch {
		if err := os.WriteFile(filepath.Join(r.Dir, scratchName), g.encode(), 0o600); err != nil {
			return Anchor{}, err
		}
		return writeManifest(r.fs, n, key)
	}
	ctx, cancel := r.context()
	defer cancel()
	if err := r.Place.register(ctx, r.ID, g, src.unchanged); err != nil {
		if errors.Is(err, ErrExists) {
			return Anchor{}, err
		}
		return Anchor{}, errors.Join(err, r.undo(r.ID))
	}
	r.homes = g.homes()
	r.setObjects(g.objects)
	a, err := writeManifest(r, n, key)
	if err != nil {
		return Anchor{}, errors.Join(err, r.undo(r.ID))
	}
	if err := r.store.Delete(ctx, planName); err != nil {
		r.Logger.Warn("the plan of a clone stays", "volume", r.ID, "err", err)
	}
	return a, nil
}

// DestroyRemote removes a volume or snapshot from the object store. From its first step on it cannot be opened or cloned; segments that
// snapshots and clones need stay until the last of them is destroyed. Destroying what is not there, or was destroyed in part, is no error.
func DestroyRemote(ctx context.Context, p Place, id string) error {
	if err := destroyRemote(ctx, p, id); err != nil {
		return fmt.Errorf("destroy %s in the object store: %w", id, err)
	}
	return nil
}

func destroyRemote(ctx context.Context, p Place, id string) error {
	s, err := p(id)
	if err != nil {
		return err
	}
	all, dead, err := generations(ctx, s)
	if err != nil {
		return err
	}
	plan, err := s.Get(ctx, planName)
	if err != nil && !isNotExist(err) {
		return err
	}
	if len(all) == 0 && !dead && err != nil {
		// Nothing, or what is left of a volume that others hold, or its segments whose first generation never came.
		return p.destroySegments(ctx, s, id)
	}
	if err := s.Put(ctx, deadName, nil); err != nil && !errors.Is(err, ErrObjectExists) {
		return err
	}
	last := [][]byte{plan}
	if all, _, err = generations(ctx, s); err != nil { // none follows: its writer would find gen-x
		return err
	}
	for _, n := range all {
		b, err := s.Get(ctx, genName(n))
		if err != nil && !isNotExist(err) {
			return err
		}
		last = append(last, b)
	}
	abroad := map[string]map[string]bool{}
	for _, b := range last {
		if len(b) == 0 {
			continue
		}
		g, err := decodeGeneration(b)
		if err != nil {
			return err
		}
		for _, home := range g.homes() {
			if abroad[home] == nil {
				abroad[home] = map[string]bool{}
			}
			maps.Copy(abroad[home], g.at(home))
		}
	}
	for home, names := range abroad {
		hs, err := p(home)
		if err != nil {
			return err
		}
		mine, err := holdsOf(ctx, hs, id)
		if err != nil {
			return err
		}
		for _, h := range mine {
			maps.Copy(names, h.names)
		}
		if err := p.sweep(ctx, home, slices.Sorted(maps.Keys(names))); err != nil {
			return err
		}
		for _, h := range mine { // they counted for nothing since gen-x
			if err := hs.Delete(ctx, h.object); err != nil {
				return err
			}
		}
	}
	if err := p.destroySegments(ctx, s, id); err != nil {
		return err
	}
	if err := s.Delete(ctx, planName); err != nil {
		return err
	}
	for _, n := range all {
		if err := s.Delete(ctx, genName(n)); err != nil {
			return err
		}
	}
	return s.Delete(ctx, deadName)
}

// destroySegments removes the segments of a volume that is being destroyed, but for what others hold.
func (p Place) destroySegments(ctx context.Context, s ObjectStore, id string) error {
	names, err := s.List(ctx, segPrefix)
	if err != nil {
		return err
	}
	return p.deleteUnheld(ctx, id, names)
}

// authenticate is the manifest b, if it is one under this key.
func authenticate(b []byte, key *secret.Bytes) (*manifest, error) {
	m, covered, err := decodeManifest(b)
	if err != nil {
		return nil, err
	}
	if mac := manifestMAC(key, m.vol, covered); !bytes.Equal(mac[:], m.mac[:]) {
		return nil, errors.Join(errors.New("the manifest does not authenticate under this key"), ErrKey, ErrCorrupt)
	}
	return m, nil
}
