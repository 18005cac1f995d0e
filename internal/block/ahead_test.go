package block

import "testing"

// TestPrepareLate: a file that is asked for when the log has it already costs neither that file nor those that are kept.
func TestPrepareLate(t *testing.T) {
	dir := t.TempDir()
	c := segFiles{fs: DirFS(dir), max: 4}
	defer c.closeAll()
	const size = 4 * BlockSize
	dead := &segment{id: 1, kind: groupLog}
	if err := c.create(dead, size); err != nil {
		t.Fatal(err)
	}
	c.release(dead)
	if !c.retire(dead, size) {
		t.Fatal("the file of a dead segment was not kept")
	}
	c.prepare(3, size) // takes the kept file
	if c.kept() != 0 || c.ahead.id != 3 {
		t.Fatalf("%d files kept, segment %d prepared; want none and 3", c.kept(), c.ahead.id)
	}
	s := &segment{id: 3, kind: groupLog}
	if err := c.create(s, size); err != nil {
		t.Fatal(err)
	}
	if _, err := s.f.WriteAt([]byte("written"), 0); err != nil {
		t.Fatal(err)
	}
	other := &segment{id: 4, kind: groupSide}
	if err := c.create(other, size); err != nil {
		t.Fatal(err)
	}
	c.release(other)
	if !c.retire(other, size) {
		t.Fatal("the file of a dead segment was not kept")
	}
	c.prepare(3, size)
	got := make([]byte, 7)
	if _, err := s.f.ReadAt(got, 0); err != nil || string(got) != "written" {
		t.Errorf("the segment's file holds %q, %v", got, err)
	}
	if c.kept() != 1 || c.ahead.f != nil {
		t.Errorf("%d files kept, prepared %v; want one and none", c.kept(), c.ahead.f)
	}
}
