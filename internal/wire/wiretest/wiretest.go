// Package wiretest tests package wire against the official Go clients: every
// operation a client has is called with a filled input, what the server decodes must equal
// it, and what the server encodes must come out of the client equal. The signature
// of each request is verified on the way, so the SDK's signer is the second
// opinion on package sigv4.
//
// The clients take long to compile, so they are imported by tests only; EC2's in a
// package of its own.
package wiretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/wire"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
)

// Credentials of the clients.
const (
	AccessKey = "AKIDEXAMPLE"
	Secret    = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	RequestID = "7e4b7a2e-0000-4000-8000-000000000000"
)

// Server answers one service's requests in memory. Set Reply before a call.
type Server struct {
	Service  *wire.Service
	Verifier *sigv4.Verifier

	Input    reflect.Type // of the expected input
	Reply    any          // *XxxOutput, or an error
	Decoded  any          // *XxxInput after a call
	Op       string
	Unknown  []string
	Validate bool
	Err      error // what went wrong on our side
}

// Do is an aws.HTTPClient.
func (s *Server) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if s.Err = s.serve(w, r); s.Err != nil {
		return nil, s.Err
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	// What net/http's server does to a client's request.
	r = r.Clone(context.Background())
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return err
		}
	}
	op, err := s.Service.Detect(r, body)
	if err != nil {
		return fmt.Errorf("detect: %w", err)
	}
	s.Op = op
	model, _ := s.Service.Operation(op)
	if !model.NoAuth {
		a, err := sigv4.Parse(r)
		if err != nil {
			return fmt.Errorf("parse the signature: %w", err)
		}
		sb := sigv4.BodyOf(body)
		sb.AllowUnsigned = model.StreamingInput()
		if err := s.Verifier.Verify(a, r, sb, []byte(Secret), a.Time.Add(time.Second)); err != nil {
			return fmt.Errorf("verify the signature: %w", err)
		}
		if a.Service != s.Service.SigningName {
			return fmt.Errorf("signing name %q, want %q", a.Service, s.Service.SigningName)
		}
	}
	in := reflect.New(s.Input).Interface()
	s.Unknown = nil
	if err := model.Parse(r, body, in, func(m string) { s.Unknown = append(s.Unknown, m) }); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	s.Decoded = in
	if s.Validate {
		if err := model.Validate(in); err != nil {
			return s.Service.EncodeError(w, RequestID, err)
		}
	}
	if err, ok := s.Reply.(error); ok {
		return s.Service.EncodeError(w, RequestID, err)
	}
	return model.Encode(w, RequestID, s.Reply)
}

// Config is a client's configuration that reaches the server.
func (s *Server) Config() aws.Config {
	endpoint := "http://" + s.Service.SigningName + ".wire.test"
	return aws.Config{
		Region:       "eu-test-1",
		HTTPClient:   s,
		BaseEndpoint: &endpoint,
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: AccessKey, SecretAccessKey: Secret, SessionToken: "session+token/=="}, nil
		}),
	}
}

// NewServer serves a service.
func NewServer(t testing.TB, signingName string) *Server {
	s, ok := wire.Lookup(signingName)
	if !ok {
		t.Fatalf("wire.Lookup(%q) found nothing", signingName)
	}
	return &Server{Service: s, Verifier: sigv4.NewVerifier()}
}

// Call is a client's method for one operation.
type Call struct {
	Name    string
	Method  reflect.Value
	In, Out reflect.Type // struct types
}

// Calls lists the operations of a client by reflection.
func Calls(client any) []Call {
	rv := reflect.ValueOf(client)
	ctx := reflect.TypeFor[context.Context]()
	var calls []Call
	for i := range rv.NumMethod() {
		name, m := rv.Type().Method(i).Name, rv.Method(i)
		mt := m.Type()
		if mt.NumIn() < 2 || mt.NumIn() > 3 || mt.NumOut() != 2 || mt.In(0) != ctx || mt.In(1).Kind() != reflect.Pointer ||
			mt.In(1).Elem().Name() != name+"Input" {
			continue
		}
		calls = append(calls, Call{name, m, mt.In(1).Elem(), mt.Out(0).Elem()})
	}
	sort.Slice(calls, func(i, j int) bool { return calls[i].Name < calls[j].Name })
	return calls
}

// Do calls the operation through the client.
func (c Call) Do(in any) (out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("client panicked: %v", p)
		}
	}()
	res := c.Method.Call([]reflect.Value{reflect.ValueOf(context.Background()), reflect.ValueOf(in)})
	err, _ = res[1].Interface().(error)
	return res[0].Interface(), err
}

// RoundTrip calls every operation of a client both ways. skip names operations
// with the reason they are left out.
func RoundTrip(t *testing.T, srv *Server, client any, skip map[string]string) {
	calls := Calls(client)
	if len(calls) == 0 {
		t.Fatal("the client has no operations")
	}
	passed := 0
	for _, c := range calls {
		ok := t.Run(c.Name, func(t *testing.T) {
			if why := skip[c.Name]; why != "" {
				t.Skip(why)
			}
			f := Filler{}
			in, out := reflect.New(c.In), reflect.New(c.Out)
			f.Fill(in.Elem())
			f.Fill(out.Elem())
			srv.Input, srv.Reply, srv.Decoded = c.In, out.Interface(), nil
			outStream := rewindStreams(out.Elem())
			inStream := rewindStreams(in.Elem())
			got, err := c.Do(in.Interface())
			if srv.Err != nil {
				t.Fatalf("server: %v", srv.Err)
			}
			if err != nil {
				t.Fatalf("client: %v", err)
			}
			if len(srv.Unknown) > 0 {
				t.Errorf("unknown members %q, want none", srv.Unknown)
			}
			if srv.Op != c.Name {
				t.Errorf("Detect = %q, want %q", srv.Op, c.Name)
			}
			inStream(t, reflect.ValueOf(srv.Decoded).Elem(), in.Elem())
			outStream(t, reflect.ValueOf(got).Elem(), out.Elem())
			if d := Diff(in.Interface(), srv.Decoded); d != "" {
				t.Errorf("input: %s", d)
			}
			if d := Diff(out.Interface(), got); d != "" {
				t.Errorf("output: %s", d)
			}
		})
		if ok {
			passed++
		}
	}
	t.Logf("%s: %d of %d operations both ways", srv.Service.Name, passed-len(skip), len(calls))
}

// rewindStreams notes the content of the struct's stream, and returns a
// function that compares another struct's stream with it and takes both out.
func rewindStreams(v reflect.Value) func(t *testing.T, got, want reflect.Value) {
	const content = "a block of data"
	return func(t *testing.T, got, want reflect.Value) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.Type.Kind() != reflect.Interface || !f.Type.Implements(reflect.TypeFor[io.Reader]()) {
				continue
			}
			r, ok := got.Field(i).Interface().(io.Reader)
			if !ok {
				t.Errorf("%s: no stream", f.Name)
				continue
			}
			if b, err := io.ReadAll(r); err != nil || string(b) != content {
				t.Errorf("%s = %q, %v, want %q", f.Name, b, err, content)
			}
			got.Field(i).SetZero()
			want.Field(i).SetZero()
		}
	}
}

// A Filler fills a value so that every member has a value of its own.
type Filler struct {
	n    int
	open []reflect.Type
}

// Fill fills v as deep as structures do not contain themselves.
func (f *Filler) Fill(v reflect.Value) {
	f.n++
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(f.n), 0).UTC()))
		return
	case reflect.TypeFor[[]byte]():
		v.SetBytes([]byte(fmt.Sprintf("blob%d\xff", f.n)))
		return
	case reflect.TypeFor[io.Reader](), reflect.TypeFor[io.ReadCloser]():
		v.Set(reflect.ValueOf(io.NopCloser(bytes.NewReader([]byte("a block of data")))))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if slices.Contains(f.open, v.Type().Elem()) {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		f.Fill(v.Elem())
	case reflect.String:
		if m := v.MethodByName("Values"); m.IsValid() {
			vals := m.Call(nil)[0]
			v.Set(vals.Index(f.n % vals.Len()))
			return
		}
		v.SetString(fmt.Sprintf("s%d &<>\"'+%%/é\n\t世𝄞", f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.n))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(f.n) + 0.5)
	case reflect.Slice:
		if slices.Contains(f.open, v.Type().Elem()) {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.Fill(v.Index(0))
		f.Fill(v.Index(1))
	case reflect.Map:
		if slices.Contains(f.open, v.Type().Elem()) {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.Fill(k)
			f.Fill(e)
			v.SetMapIndex(k, e)
		}
	case reflect.Struct:
		f.open = append(f.open, v.Type())
		for i := range v.NumField() {
			sf := v.Type().Field(i)
			if sf.IsExported() && !sf.Anonymous && sf.Name != "ResultMetadata" {
				f.Fill(v.Field(i))
			}
		}
		f.open = f.open[:len(f.open)-1]
	case reflect.Interface:
		if m, ok := UnionMembers[v.Type()]; ok {
			x := reflect.New(reflect.TypeOf(m).Elem())
			f.Fill(x.Elem())
			v.Set(x)
		}
	}
}

// UnionMembers gives the Filler a member of each union.
var UnionMembers = map[reflect.Type]any{}

// Diff compares two structs and names the first difference, "" when there is
// none.
func Diff(want, got any) string {
	return diff("", reflect.ValueOf(want), reflect.ValueOf(got))
}

func diff(path string, w, g reflect.Value) string {
	if w.IsValid() != g.IsValid() {
		return fmt.Sprintf("%s: got %v, want %v", path, g, w)
	}
	if !w.IsValid() || w.Type() != g.Type() {
		if w.IsValid() {
			return fmt.Sprintf("%s: got a %v, want a %v", path, g.Type(), w.Type())
		}
		return ""
	}
	if w.Type() == reflect.TypeFor[time.Time]() {
		if !w.Interface().(time.Time).Equal(g.Interface().(time.Time)) {
			return fmt.Sprintf("%s: got %v, want %v", path, g, w)
		}
		return ""
	}
	switch w.Kind() {
	case reflect.Pointer, reflect.Interface:
		if w.IsNil() || g.IsNil() {
			if w.IsNil() != g.IsNil() {
				return fmt.Sprintf("%s: got nil %v, want nil %v", path, g.IsNil(), w.IsNil())
			}
			return ""
		}
		return diff(path, w.Elem(), g.Elem())
	case reflect.Struct:
		for i := range w.NumField() {
			f := w.Type().Field(i)
			if !f.IsExported() || f.Name == "ResultMetadata" {
				continue
			}
			if d := diff(path+"."+f.Name, w.Field(i), g.Field(i)); d != "" {
				return d
			}
		}
		return ""
	case reflect.Slice:
		if w.Len() != g.Len() {
			return fmt.Sprintf("%s: got %d elements, want %d", path, g.Len(), w.Len())
		}
		for i := range w.Len() {
			if d := diff(fmt.Sprintf("%s[%d]", path, i), w.Index(i), g.Index(i)); d != "" {
				return d
			}
		}
		return ""
	case reflect.Map:
		if w.Len() != g.Len() {
			return fmt.Sprintf("%s: got %d entries, want %d", path, g.Len(), w.Len())
		}
		for _, k := range w.MapKeys() {
			if d := diff(fmt.Sprintf("%s[%v]", path, k), w.MapIndex(k), g.MapIndex(k)); d != "" {
				return d
			}
		}
		return ""
	}
	if !reflect.DeepEqual(w.Interface(), g.Interface()) {
		return fmt.Sprintf("%s: got %q, want %q", path, fmt.Sprint(g), fmt.Sprint(w))
	}
	return ""
}

// ErrorReplies sends errors through a call of the client and checks that they
// arrive as themselves: with code, message and the SDK's type.
func ErrorReplies(t *testing.T, srv *Server, client any, op string, errs ...smithy.APIError) {
	var call Call
	for _, c := range Calls(client) {
		if c.Name == op {
			call = c
		}
	}
	if call.Name == "" {
		t.Fatalf("the client has no operation %s", op)
	}
	for _, want := range errs {
		in := reflect.New(call.In)
		(&Filler{}).Fill(in.Elem())
		srv.Input, srv.Reply = call.In, want
		_, err := call.Do(in.Interface())
		if srv.Err != nil {
			t.Fatalf("server: %v", srv.Err)
		}
		var got smithy.APIError
		if !errors.As(err, &got) {
			t.Errorf("%s: client got %v, want an API error", want.ErrorCode(), err)
			continue
		}
		if got.ErrorCode() != want.ErrorCode() || got.ErrorMessage() != want.ErrorMessage() {
			t.Errorf("got %s %q, want %s %q", got.ErrorCode(), got.ErrorMessage(), want.ErrorCode(), want.ErrorMessage())
		}
		if reflect.TypeOf(got) != reflect.TypeOf(want) {
			t.Errorf("%s: client got a %T, want a %T", want.ErrorCode(), got, want)
		}
		if d := Diff(want, got); d != "" && !strings.HasPrefix(d, ".Fault") {
			t.Errorf("%s: %s", want.ErrorCode(), d)
		}
	}
}
