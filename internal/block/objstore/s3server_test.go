package objstore

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// s3Server is as much of S3 as volumes need, in memory: create-only puts, gets, removals, and lists in pages of five.
type s3Server struct {
	mu      sync.Mutex
	objects map[string][]byte // by "bucket/key"
}

func startS3(t *testing.T) (place string) {
	srv := httptest.NewServer(&s3Server{objects: map[string][]byte{}})
	t.Cleanup(srv.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	return "s3://bucket/some/prefix?endpoint=" + srv.URL
}

func (s *s3Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, code string) {
		w.WriteHeader(status)
		_ = xml.NewEncoder(w).Encode(struct {
			XMLName xml.Name `xml:"Error"`
			Code    string
		}{Code: code})
	}
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
		fail(http.StatusForbidden, "AccessDenied")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		fail(http.StatusBadRequest, "IncompleteBody")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/")
	old, ok := s.objects[key]
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("list-type") == "2":
		s.list(w, key, r.URL.Query().Get("prefix"), r.URL.Query().Get("continuation-token"))
	case r.Method == http.MethodPut && r.Header.Get("If-None-Match") == "*" && ok:
		fail(http.StatusPreconditionFailed, "PreconditionFailed")
	case r.Method == http.MethodPut:
		s.objects[key] = body
	case r.Method == http.MethodGet && !ok:
		fail(http.StatusNotFound, "NoSuchKey")
	case r.Method == http.MethodGet:
		w.Header().Set("Content-Length", strconv.Itoa(len(old)))
		_, _ = w.Write(old)
	case r.Method == http.MethodDelete:
		delete(s.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(http.StatusNotImplemented, "NotImplemented")
	}
}

func (s *s3Server) list(w http.ResponseWriter, bucket, prefix, after string) {
	type content struct{ Key string }
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Contents              []content
		IsTruncated           bool
		NextContinuationToken string
	}{}
	var keys []string
	for path := range s.objects {
		if key, ok := strings.CutPrefix(path, strings.TrimSuffix(bucket, "/")+"/"); ok && strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if len(out.Contents) == 5 {
			out.IsTruncated, out.NextContinuationToken = true, out.Contents[4].Key
			break
		}
		out.Contents = append(out.Contents, content{key})
	}
	_ = xml.NewEncoder(w).Encode(out)
}
