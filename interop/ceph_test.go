package interop

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestCeph runs the tests of volumes in S3 against a real Ceph with its RADOS gateway. It takes a minute and fixed ports, so it is asked
// for with SEALDESK_TEST_CEPH=1.
func TestCeph(t *testing.T) {
	if os.Getenv("SEALDESK_TEST_CEPH") == "" {
		t.Skip("SEALDESK_TEST_CEPH is not set")
	}
	for _, tool := range []string{"ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph", "aws"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (Debian: ceph-mon ceph-mgr ceph-osd radosgw ceph-common awscli)", tool)
		}
	}
	dir, err := os.MkdirTemp("", "ceph")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("./ceph", "down", dir).Run()
		os.RemoveAll(dir)
	})
	up := exec.Command("./ceph", "up", dir)
	up.Stderr = os.Stderr
	env, err := up.Output()
	if err != nil {
		t.Fatalf("start Ceph: %v", err)
	}
	c := exec.Command("go", "test", "-count=1", "-v", "-run", "TestS3", "../internal/block/objstore")
	c.Env = append(os.Environ(), strings.Fields(string(env))...)
	out, err := c.CombinedOutput()
	if err != nil || strings.Contains(string(out), "--- SKIP") {
		t.Errorf("tests on Ceph: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
