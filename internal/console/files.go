package console

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
)

// dist is what `make console` builds, with a file that says so in the compiler's
// message when it was not. Who works without Node.js makes that file, empty:
// then the pages say how to get them.
//
//go:embed all:dist
//go:embed dist/run-make-console-first
var dist embed.FS

// files serves the built pages, compressed once each.
type files struct {
	fs fs.FS

	mu     sync.Mutex
	gzips  map[string][]byte
	absent []byte
}

func newFiles() *files {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(fmt.Sprintf("console: %v", err)) // the directory is embedded
	}
	return &files{fs: sub, gzips: map[string][]byte{}, absent: []byte(notBuilt)}
}

const notBuilt = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Sealdesk</title>
<h1>The console is not in this program</h1>
<p>This sealdesk was built without its pages. Build them in, with Node.js 20 or newer:</p><pre>make console build</pre>
<p>The APIs work all the same: point any AWS client at this address.</p></html>`

// Built reports whether the pages are in the program.
func Built() bool {
	_, err := fs.Stat(dist, "dist/index.html")
	return err == nil
}

// serve answers with the file below prefix, and with page for every other path,
// which the page's own router then understands.
func (f *files) serve(page, prefix string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		name = strings.TrimPrefix(name, strings.Trim(prefix, "/"))
		name = strings.TrimPrefix(name, "/")
		if name == "" || !strings.Contains(path.Base(name), ".") || strings.HasPrefix(path.Base(name), ".") {
			name = page
		}
		b, err := fs.ReadFile(f.fs, name)
		if err != nil && strings.HasSuffix(name, ".html") {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write(f.absent)
			return
		}
		if err != nil {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		if strings.HasSuffix(name, ".woff2") { // not in every system's table
			h.Set("Content-Type", "font/woff2")
		} else if t := mime.TypeByExtension(path.Ext(name)); t != "" {
			h.Set("Content-Type", t)
		}
		if strings.HasPrefix(name, "assets/") {
			h.Set("Cache-Control", "public, max-age=31536000, immutable") // the name has the content's hash
		} else {
			h.Set("Cache-Control", "no-cache")
		}
		h.Set("Vary", "Accept-Encoding")
		if compressible(name) && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			b = f.gzip(name, b)
			h.Set("Content-Encoding", "gzip")
		}
		h.Set("Content-Length", fmt.Sprint(len(b)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(b)
		}
	}
}

func compressible(name string) bool {
	switch path.Ext(name) {
	case ".html", ".js", ".css", ".svg", ".json", ".webmanifest":
		return true
	}
	return false
}

func (f *files) gzip(name string, b []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if z, ok := f.gzips[name]; ok {
		return z
	}
	var buf bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression) // the level is valid
	_, _ = zw.Write(b)                                       // to memory
	_ = zw.Close()
	f.gzips[name] = buf.Bytes()
	return buf.Bytes()
}
