package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names of the objects of a volume or snapshot, beside its segments. See docs/formats/volume.md, "Other homes".
const (
	genPrefix  = "gen-"
	deadName   = "gen-x" // sorts behind every generation: it is being destroyed
	planName   = "plan"  // what a snapshot or clone is going to name, before it exists
	holdPrefix = "hold-" // hold-HOLDER.NUMBER: segments here that HOLDER needs

	genHeader      = 32
	genRow         = 24
	maxGenSegments = 1 << 24
	maxGenHomes    = 1 << 16
)

func genName(n uint64) string { return fmt.Sprintf("%s%016x", genPrefix, n) }

// segObject names the object of a segment's first slots.
type segObject struct {
	slots uint32
	owner [8]byte
	home  string // the volume below whose name it lies; "": the one that names it
}

func (o segObject) name(id uint64) string {
	return fmt.Sprintf("%s%016x-%06x-%x", segPrefix, id, o.slots, o.owner)
}

var segObjectName = regexp.MustCompile(`^seg-([0-9a-f]{16})-([0-9a-f]{6})-([0-9a-f]{16})$`)

// ownerOf is the owner in the name of a segment's object.
func ownerOf(name string) (o [8]byte, ok bool) {
	m := segObjectName.FindStringSubmatch(name)
	if m == nil {
		return o, false
	}
	n, err := strconv.ParseUint(m[3], 16, 64)
	binary.BigEndian.PutUint64(o[:], n)
	return o, err == nil
}

var holderName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

// checkHolder refuses IDs that cannot be a part of an object's name.
func checkHolder(id string) error {
	if !holderName.MatchString(id) {
		return fmt.Errorf("volume or snapshot ID %q: in an object store it has 1 to 128 letters, digits, _ and -", id)
	}
	return nil
}

// generation is a state of a volume or snapshot in the store; a hold is one without a manifest.
type generation struct {
	manifest []byte
	owner    [8]byte
	objects  map[uint64]segObject // by segment
	held     []string             // homes where it may have a hold, whether it names anything there or not
}

// homes are the other volumes where it names or holds objects, sorted.
func (g *generation) homes() []string {
	hs := slices.Clone(g.held)
	for _, o := range g.objects {
		if o.home != "" {
			hs = append(hs, o.home)
		}
	}
	slices.Sort(hs)
	return slices.Compact(hs)
}

// at are the names of the objects that lie at home ("": its own).
func (g *generation) at(home string) map[string]bool {
	names := map[string]bool{}
	for id, o := range g.objects {
		if o.home == home {
			names[o.name(id)] = true
		}
	}
	return names
}

// owners are those who have written it and its own objects.
func (g *generation) owners() map[[8]byte]bool {
	m := map[[8]byte]bool{g.owner: true}
	for _, o := range g.objects {
		if o.home == "" {
			m[o.owner] = true
		}
	}
	return m
}

// encode writes version 1 when all objects are its own, else version 2.
func (g *generation) encode() []byte {
	le := binary.LittleEndian
	homes := g.homes()
	b := make([]byte, genHeader, genHeader+len(g.manifest)+genRow*len(g.objects)+64*len(homes))
	copy(b, "SDVR\x01\x00")
	if len(homes) > 0 {
		b[4] = 2
	}
	le.PutUint32(b[8:], uint32(len(g.manifest)))
	le.PutUint32(b[12:], uint32(len(g.objects)))
	copy(b[16:], g.owner[:])
	le.PutUint32(b[24:], uint32(len(homes)))
	b = append(b, g.manifest...)
	for _, id := range slices.Sorted(maps.Keys(g.objects)) {
		o := g.objects[id]
		home := 0
		if o.home != "" {
			home, _ = slices.BinarySearch(homes, o.home)
			home++
		}
		b = le.AppendUint64(b, id)
		b = le.AppendUint32(b, o.slots)
		b = le.AppendUint32(b, uint32(home))
		b = append(b, o.owner[:]...)
	}
	for _, h := range homes {
		b = append(append(b, byte(len(h))), h...)
	}
	return b
}

func decodeGeneration(b []byte) (*generation, error) {
	le := binary.LittleEndian
	bad := fmt.Errorf("generation of %d bytes: %w", len(b), ErrCorrupt)
	if len(b) < genHeader || !bytes.HasPrefix(b, []byte("SDVR")) {
		return nil, bad
	}
	version := le.Uint16(b[4:])
	n, rows, nhomes := uint64(le.Uint32(b[8:])), uint64(le.Uint32(b[12:])), uint64(le.Uint32(b[24:]))
	if version < 1 || version > 2 || version == 1 && nhomes != 0 {
		return nil, fmt.Errorf("generation of version %d: %w", version, errors.ErrUnsupported)
	}
	if rows > maxGenSegments || nhomes > maxGenHomes || uint64(len(b)) < genHeader+n+genRow*rows {
		return nil, bad
	}
	g := &generation{manifest: b[genHeader : genHeader+n], owner: [8]byte(b[16:]), objects: make(map[uint64]segObject, rows)}
	table := b[genHeader+n:][:genRow*rows]
	homes := []string{""}
	rest := b[genHeader+n+genRow*rows:]
	for range nhomes {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return nil, bad
		}
		h := string(rest[1 : 1+rest[0]])
		if err := checkHolder(h); err != nil {
			return nil, fmt.Errorf("%w: %w", bad, err)
		}
		homes, rest = append(homes, h), rest[1+len(h):]
	}
	g.held = homes[1:]
	if len(rest) != 0 {
		return nil, bad
	}
	for p := table; len(p) > 0; p = p[genRow:] {
		home := le.Uint32(p[12:])
		if uint64(home) >= uint64(len(homes)) {
			return nil, bad
		}
		g.objects[le.Uint64(p)] = segObject{slots: le.Uint32(p[8:]), owner: [8]byte(p[16:]), home: homes[home]}
	}
	return g, nil
}

// generations lists the numbers of a volume's generations, lowest first; dead says that it is being destroyed.
func generations(ctx context.Context, s ObjectStore) (all []uint64, dead bool, err error) {
	names, err := s.List(ctx, genPrefix)
	if err != nil {
		return nil, false, err
	}
	for _, name := range names {
		if name == deadName {
			dead = true
			continue
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(name, genPrefix), 16, 64)
		if err != nil || genName(n) != name {
			return nil, false, fmt.Errorf("object %q: %w", name, ErrCorrupt)
		}
		all = append(all, n)
	}
	return all, dead, nil
}

var errDestroyed = errors.New("the volume was destroyed, or is about to be")

// newest finds the newest generation; number 0 when there is none.
func newest(ctx context.Context, s ObjectStore) (uint64, []byte, error) {
	for range 10 { // it may be replaced, and removed, between the two calls
		all, dead, err := generations(ctx, s)
		if err != nil {
			return 0, nil, err
		}
		if dead {
			return 0, nil, errDestroyed
		}
		if len(all) == 0 {
			return 0, nil, nil
		}
		n := all[len(all)-1]
		b, err := s.Get(ctx, genName(n))
		if isNotExist(err) {
			continue
		}
		return n, b, err
	}
	return 0, nil, fmt.Errorf("generations change too fast: %w", ErrBusy)
}
