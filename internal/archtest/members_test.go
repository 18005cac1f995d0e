package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// TestNoMemberIsDropped: every input member of every operation of the table is
// either read by the program or refused by name (api.Refuses). A member that
// the SDK sends and nobody reads would be a wish silently not granted.
//
// What counts as read is what the type checker says: an expression x.Member of
// exactly that input type (or of the type nested in it) that is not the target of
// an assignment. A nested type that several operations share counts for all.
func TestNoMemberIsDropped(t *testing.T) {
	if testing.Short() {
		t.Skip("type-checks every service")
	}
	read := membersRead(t)
	s := apptest.New(t)
	members, operations := 0, 0
	var dropped []string
	for service, ops := range s.App.Gateway().Operations() {
		for name, op := range ops {
			if op.Internal || slices.Contains(refusedAlways, service+":"+name) {
				continue
			}
			operations++
			members += eachMember(op.In, "", nil, func(in reflect.Type, field, path string) bool {
				if slices.Contains(byName[service], path) {
					return false
				}
				if read[member{in.PkgPath(), in.Name(), field}] {
					return refusedWhole[service+":"+name+" "+path] == ""
				}
				if f, _ := in.FieldByName(field); !refused(op, path) && !oneValue(f.Type) {
					dropped = append(dropped, service+":"+name+" "+path)
				}
				return false
			})
		}
	}
	const kms = "github.com/aws/aws-sdk-go-v2/service/kms"
	if read[member{kms, "DecryptInput", "Recipient"}] || !read[member{kms, "DecryptInput", "EncryptionContext"}] {
		t.Error("Decrypt reads its EncryptionContext and refuses Recipient: the test does not see that")
	}
	sort.Strings(dropped)
	for _, d := range dropped {
		t.Errorf("%s is neither read nor refused by name", d)
	}
	if operations < 150 || members < 800 {
		t.Errorf("looked at %d members of %d operations: the test sees too little", members, operations)
	}
	t.Logf("%d members of %d operations", members, operations)
}

// byName are the members that a service reads by reflection, for all of its
// operations at once, so that the type checker sees no read. Each has a test of
// its own: TestDryRun, TestClientToken, the realms and directories of ds-data, grant tokens.
var byName = map[string][]string{
	"ec2":     {"DryRun"},
	"ds-data": {"DirectoryId", "Realm", "MemberRealm", "ClientToken"},
	"kms":     {"GrantTokens"},
}

// refusedWhole are members of which code refuses any value, by name, where a
// refusal of the whole call would be wrong or another error is documented. What is
// below them is not looked at.
var refusedWhole = map[string]string{
	"workspaces:CreateWorkspaces Workspaces.WorkspaceProperties.GlobalAccelerator": "one failed request of several",
	"workspaces:ModifyWorkspaceProperties WorkspaceProperties.GlobalAccelerator":   "shares the code of CreateWorkspaces",
	"cloudtrail:PutEventSelectors EventSelectors.DataResources":                    "InvalidEventSelectorsException",
}

// refusedAlways are operations that answer every call with an error, because the
// thing they are about cannot exist here.
var refusedAlways = []string{"kms:CreateCustomKeyStore", "kms:UpdateCustomKeyStore", "cloudtrail:CreateEventDataStore",
	"workspaces:ModifyAccount", "workspaces:ListAvailableManagementCidrRanges", "workspaces:CreateUpdatedWorkspaceImage", "workspaces:ImportWorkspaceImage", "workspaces:CreateWorkspacesPool", "workspaces:CreateStandbyWorkspaces",
	"ds:ConnectDirectory", "ds:CreateTrust", "ds:ShareDirectory", "ds:AddRegion", "ds:EnableLDAPS", "ds:RegisterCertificate", "ds:EnableClientAuthentication", "ds:CreateConditionalForwarder",
	"ds:CreateLogSubscription", "ds:UpdateSettings", "ds:AddIpRoutes", "ds:RegisterEventTopic", "ds:StartSchemaExtension"}

// oneValue reports whether t is an enumeration of a single value (DAYS): any other is
// refused before the operation sees it, so that there is nothing to read.
func oneValue(t reflect.Type) bool {
	m, ok := t.MethodByName("Values")
	return ok && t.Kind() == reflect.String && m.Func.Call([]reflect.Value{reflect.Zero(t)})[0].Len() == 1
}

func refused(op *api.Operation, path string) bool { return slices.Contains(op.Refuses, path) }

// eachMember visits the members of an input type, and those of the structs below
// a member for which visit said yes. It returns how many it visited.
func eachMember(in reflect.Type, prefix string, within []reflect.Type, visit func(in reflect.Type, field, path string) bool) int {
	for in.Kind() == reflect.Pointer || in.Kind() == reflect.Slice || in.Kind() == reflect.Map {
		in = in.Elem()
	}
	if in.Kind() != reflect.Struct || in.PkgPath() == "time" || slices.Contains(within, in) {
		return 0
	}
	n := 0
	for i := range in.NumField() {
		f := in.Field(i)
		if !f.IsExported() || f.Name == "ResultMetadata" {
			continue
		}
		n++
		path := prefix + f.Name
		if visit(in, f.Name, path) {
			n += eachMember(f.Type, path+".", append(within, in), visit)
		}
	}
	return n
}

// member is a field of a named struct type.
type member struct{ pkg, typ, field string }

// membersRead type-checks the services and what joins them, and returns the
// struct fields that their code reads.
func membersRead(t *testing.T) map[member]bool {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Module",
		module+"internal/app", module+"internal/gateway")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -export: %v", err)
	}
	exports := map[string]string{}
	var rooms []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			pkg
			Export string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if path, ok := strings.CutPrefix(p.ImportPath, module+"internal/"); ok && !strings.HasPrefix(path, "wire") {
			rooms = append(rooms, p.pkg)
		}
	}
	fset := token.NewFileSet()
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(exports[path])
	})
	read := map[member]bool{}
	for _, p := range rooms {
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
		cfg := types.Config{Importer: imp}
		if _, err := cfg.Check(p.ImportPath, fset, files, info); err != nil {
			t.Fatalf("type-check %s: %v", p.ImportPath, err)
		}
		written := map[*ast.SelectorExpr]bool{}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				if a, ok := n.(*ast.AssignStmt); ok && a.Tok == token.ASSIGN {
					for _, l := range a.Lhs {
						if sel, ok := l.(*ast.SelectorExpr); ok {
							written[sel] = true
						}
					}
				}
				return true
			})
		}
		for sel, s := range info.Selections {
			if s.Kind() != types.FieldVal || written[sel] {
				continue
			}
			typ := s.Recv()
			for _, i := range s.Index() { // through embedded fields, each of which is read
				if ptr, ok := typ.Underlying().(*types.Pointer); ok {
					typ = ptr.Elem()
				}
				st, ok := typ.Underlying().(*types.Struct)
				if !ok {
					break
				}
				if named, ok := types.Unalias(typ).(*types.Named); ok && named.Obj().Pkg() != nil {
					read[member{named.Obj().Pkg().Path(), named.Obj().Name(), st.Field(i).Name()}] = true
				}
				typ = st.Field(i).Type()
			}
		}
	}
	return read
}
