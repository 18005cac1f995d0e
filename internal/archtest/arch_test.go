// Package archtest tests the repository itself: who may import whom, that every
// package says what it promises, and that no input member is silently dropped.
package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/sealdesk/sealdesk/"

type pkg struct {
	ImportPath, Dir, Doc string
	Imports              []string
	GoFiles              []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Imports,GoFiles", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// layers, top to bottom: a package imports packages of lower layers only, or of
// its own room.
var layers = [][]string{
	{"cmd", "interop", "bench"},
	{"internal/app", "internal/archtest"},
	{"internal/gateway", "internal/console", "internal/front"},
	{"internal/kms", "internal/iam", "internal/sts", "internal/cloudtrail", "internal/ec2", "internal/ebs", "internal/rbin", "internal/workspaces", "internal/directory"},
	{"internal/block", "internal/compute", "internal/kms/keyring", "internal/xks"},
	{"internal/api"},
	{"internal/audit", "internal/wire"},
	{"internal/policy", "internal/store", "internal/kms/pkcs11"},
	{"internal/secret", "internal/arn", "internal/ids", "internal/clock", "internal/durable"},
}

// room is the longest layer entry that the package is in, and its layer.
func room(path string) (name string, layer int) {
	layer = -1
	for l, rooms := range layers {
		for _, r := range rooms {
			if (path == r || strings.HasPrefix(path, r+"/")) && len(r) > len(name) {
				name, layer = r, l
			}
		}
	}
	return name, layer
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		from, fromLayer := room(path)
		if fromLayer < 0 {
			t.Errorf("package %s is in no room: add it to the layers here and to ARCHITECTURE.md", path)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) {
				// objstore is a client of any S3-compatible store, and of nothing else of AWS.
				knowsNoAWS := from == "internal/block" && path != "internal/block/objstore" || from == "internal/compute" || from == "internal/policy"
				if knowsNoAWS && strings.Contains(imp, "aws-sdk-go") {
					t.Errorf("%s knows no AWS, and imports %s", path, imp)
				}
				continue
			}
			to, toLayer := room(strings.TrimPrefix(imp, module))
			if to != from && toLayer <= fromLayer {
				t.Errorf("%s imports %s: a room imports only rooms below it", path, strings.TrimPrefix(imp, module))
			}
		}
	}
}

func TestEveryPackageHasADoc(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		want := "Package " + filepath.Base(p.ImportPath) + " "
		if strings.HasPrefix(p.ImportPath, module+"cmd/") {
			want = "Command " + filepath.Base(p.ImportPath) + " "
		}
		if !strings.HasPrefix(p.Doc, want) && !strings.HasPrefix(p.Doc, "Command ") {
			t.Errorf("%s: package doc begins %.40q, want %q", p.ImportPath, p.Doc, want)
		}
	}
}

func TestFilesAreOneIdea(t *testing.T) {
	for _, p := range packages(t) {
		for _, f := range p.GoFiles {
			fset := token.NewFileSet()
			parsed, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if generated(fmt.Sprint(parsed.Comments)) {
				continue
			}
			if n := fset.File(parsed.Pos()).LineCount(); n > 900 {
				t.Errorf("%s/%s has %d lines: look for the second idea in it", p.ImportPath, f, n)
			}
		}
	}
}

func generated(comments string) bool { return strings.Contains(comments, "Code generated") }
