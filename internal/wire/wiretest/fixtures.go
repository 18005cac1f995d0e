package wiretest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/wire"
)

// snapshots returns the files of a folder of an SDK module, or skips.
func snapshots(t *testing.T, module, folder, suffix string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/"+module).Output()
	if err != nil {
		t.Skipf("the SDK's fixtures need the go command and the module cache: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), folder, "*"+suffix))
	if err != nil || len(files) == 0 {
		t.Fatalf("module %s has no %s/*%s", module, folder, suffix)
	}
	return files
}

type snapshot struct {
	first  string // "POST /path?query" or a status
	header http.Header
	body   []byte
}

// readSnapshot reads "first line, [blank], headers, blank, body".
func readSnapshot(t *testing.T, path string) snapshot {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(bytes.NewReader(raw))
	s := snapshot{header: http.Header{}}
	line, _ := r.ReadString('\n')
	s.first = strings.TrimSpace(line)
	for {
		line, err := r.ReadString('\n')
		line = strings.TrimSpace(line)
		if line == "" {
			if err == nil && len(s.header) == 0 {
				continue
			}
			break
		}
		k, v, _ := strings.Cut(line, ":")
		s.header.Add(k, strings.TrimSpace(v))
	}
	s.body, _ = io.ReadAll(r)
	return s
}

// RequestFixtures decodes every request fixture that ships with an SDK module.
// With awsJson, encoding what was decoded must give the same JSON.
func RequestFixtures(t *testing.T, s *wire.Service, module string, client any) {
	inputs := map[string]reflect.Type{}
	for _, c := range Calls(client) {
		inputs[c.Name] = c.In
	}
	n := 0
	for _, file := range snapshots(t, module, "request_snapshot", ".request.snap") {
		name := strings.TrimSuffix(filepath.Base(file), ".request.snap")
		t.Run(name, func(t *testing.T) {
			f := readSnapshot(t, file)
			method, target, _ := strings.Cut(f.first, " ")
			r := httptest.NewRequest(method, target, bytes.NewReader(f.body))
			r.Header = f.header
			op, err := s.Detect(r, f.body)
			if err != nil || op != name {
				t.Fatalf("Detect(%s) = %q, %v, want %q", f.first, op, err, name)
			}
			model, _ := s.Operation(op)
			in := reflect.New(inputs[name])
			if err := model.Parse(r, f.body, in.Interface(), func(m string) {
				t.Errorf("unknown member %s", m)
			}); err != nil {
				t.Fatalf("Parse(%s): %v", f.body, err)
			}
			if len(f.body) > 0 && s.Protocol == wire.JSON {
				got, err := model.AppendInput(nil, in.Interface())
				if err != nil {
					t.Fatal(err)
				}
				SameJSON(t, got, f.body)
			}
			n++
		})
	}
	t.Logf("%s: %d request fixtures decoded", s.Name, n)
}

// ReplyFixtures gives every reply fixture to the client and encodes what it makes of
// it: the JSON must be the fixture's. Error fixtures are compared with our encoding of an
// error of that code.
func ReplyFixtures(t *testing.T, srv *Server, module string, newClient func(do func(*http.Request) (*http.Response, error)) any) {
	for _, file := range snapshots(t, module, "response_snapshot", ".snap") {
		base := filepath.Base(file)
		name, _, _ := strings.Cut(base, ".")
		t.Run(strings.TrimSuffix(base, ".snap"), func(t *testing.T) {
			f := readSnapshot(t, file)
			status, err := strconv.Atoi(f.first)
			if err != nil {
				t.Fatalf("status %q", f.first)
			}
			w := httptest.NewRecorder()
			if strings.HasSuffix(base, ".error.snap") {
				if err := srv.Service.EncodeError(w, RequestID, &smithy.GenericAPIError{Code: name, Message: "__Message__"}); err != nil {
					t.Fatal(err)
				}
				var want, got map[string]any
				if json.Unmarshal(f.body, &want) != nil || json.Unmarshal(w.Body.Bytes(), &got) != nil {
					t.Fatalf("not JSON: %s, %s", f.body, w.Body)
				}
				for _, k := range []string{"message", "Message"} {
					if want[k] != got[k] {
						t.Errorf("%s = %v, want %v", k, got[k], want[k])
					}
				}
				if got["__type"] != name {
					t.Errorf("__type = %v, want %s", got["__type"], name)
				}
				return
			}
			var out any
			client := newClient(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: f.header, Body: io.NopCloser(bytes.NewReader(f.body)), Request: r}, nil
			})
			for _, c := range Calls(client) {
				if c.Name != name {
					continue
				}
				in := reflect.New(c.In)
				(&Filler{}).Fill(in.Elem())
				if out, err = c.Do(in.Interface()); err != nil {
					t.Fatalf("client: %v", err)
				}
			}
			if out == nil {
				t.Fatalf("the client has no operation %s", name)
			}
			model, _ := srv.Service.Operation(name)
			if err := model.Encode(w, RequestID, out); err != nil {
				t.Fatal(err)
			}
			if w.Code != model.Status {
				t.Errorf("status %d, want %d", w.Code, model.Status)
			}
			if strings.HasPrefix(f.header.Get("Content-Type"), "application/octet-stream") {
				if !bytes.Equal(w.Body.Bytes(), f.body) {
					t.Errorf("stream %q, want %q", w.Body, f.body)
				}
			} else if len(f.body) > 0 {
				SameJSON(t, w.Body.Bytes(), f.body)
			}
			for k := range f.header {
				if strings.HasPrefix(k, "X-Amz-") && k != "X-Amz-Target" && w.Header().Get(k) != f.header.Get(k) {
					t.Errorf("header %s = %q, want %q", k, w.Header().Get(k), f.header.Get(k))
				}
			}
		})
	}
}

// SameJSON compares two JSON texts.
func SameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("got no JSON: %v in %s", err, got)
	}
	if err := json.Unmarshal(want, &w); err != nil {
		t.Fatalf("want no JSON: %v in %s", err, want)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
