package wire

import (
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"unsafe"
)

func (o *OperationModel) inputPlan(t reflect.Type) (*structPlan, error) {
	if p := o.in.Load(); p != nil && p.typ == t {
		return p, nil
	}
	p, err := o.Service.plan(t, o.input)
	if err == nil {
		o.in.Store(p)
	}
	return p, err
}

func (o *OperationModel) outputPlan(t reflect.Type) (*structPlan, error) {
	if p := o.out.Load(); p != nil && p.typ == t {
		return p, nil
	}
	p, err := o.Service.plan(t, o.output)
	if err == nil {
		o.out.Store(p)
	}
	return p, err
}

// StreamingInput tells whether the request's body is a stream (ebs
// PutSnapshotBlock): then Decode may be called with a nil body, and the input's
// reader is the request's.
func (o *OperationModel) StreamingInput() bool {
	t := o.Service.table()
	sh := t.shapes[o.input]
	if sh == nil || sh.payload == "" || sh.members[upperFirst(sh.payload)] == nil {
		return false
	}
	ps := t.shapes[sh.members[upperFirst(sh.payload)].shape]
	return ps == nil || ps.typ == "blob"
}

// Decode reads a request into a new *XxxInput and validates it (Validate).
// Members that the input does not have are passed to unknown, which may be
// nil, by their dotted wire name, and otherwise ignored. Errors are *Error, of kind
// Serialization, Validation or MissingParameter.
func (o *OperationModel) Decode(r *http.Request, body []byte, into any, unknown func(member string)) error {
	sp, p, err := o.parse(r, body, into, unknown)
	if err != nil {
		return err
	}
	return validate(o.Service, sp, p)
}

// Parse is Decode without Validate.
func (o *OperationModel) Parse(r *http.Request, body []byte, into any, unknown func(member string)) error {
	_, _, err := o.parse(r, body, into, unknown)
	return err
}

func (o *OperationModel) parse(r *http.Request, body []byte, into any, unknown func(member string)) (*structPlan, unsafe.Pointer, error) {
	t, p, err := structAddr(into)
	if err != nil {
		return nil, nil, err
	}
	sp, err := o.inputPlan(t)
	if err != nil {
		return nil, nil, err
	}
	switch o.Service.Protocol {
	case JSON:
		err = decodeJSON(body, sp, p, unknown)
	case Query, EC2Query:
		err = decodeForm(r, body, o.Service.Protocol, sp, p, unknown)
	case RESTJSON:
		err = o.decodeREST(r, body, sp, p, unknown)
	}
	if err != nil {
		return nil, nil, err
	}
	return sp, p, nil
}

// Validate checks an input against the constraints of the model: required
// members, lengths, ranges, patterns, enums. In-process callers use it to be held to
// the rules of remote ones.
func (o *OperationModel) Validate(in any) error {
	t, p, err := structAddr(in)
	if err != nil {
		return err
	}
	sp, err := o.inputPlan(t)
	if err != nil {
		return err
	}
	return validate(o.Service, sp, p)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// putBuffer clears what a reply held, since it may be key material, and keeps
// the buffer.
func putBuffer(bp *[]byte, b []byte) {
	clear(b[:cap(b)][:len(b)])
	if cap(b) <= 64<<10 {
		*bp = b[:0]
		buffers.Put(bp)
	}
}

// Encode writes a successful reply.
func (o *OperationModel) Encode(w http.ResponseWriter, requestID string, out any) error {
	t, p, err := structAddr(out)
	if err != nil {
		return err
	}
	sp, err := o.outputPlan(t)
	if err != nil {
		return err
	}
	h := w.Header()
	h["X-Amzn-Requestid"] = []string{requestID}
	if o.Service.Protocol == RESTJSON {
		if err := encodeHeaders(h, sp, p); err != nil {
			return err
		}
		if sp.payload >= 0 && sp.fields[sp.payload].v.kind == kindReader {
			return o.encodeStream(w, sp, p)
		}
	}
	bp := buffers.Get().(*[]byte)
	var b []byte
	if _, asJSON := w.(jsonReply); asJSON {
		b = o.appendQueryJSON((*bp)[:0], requestID, sp, p)
		h["Content-Type"] = typeJSON
	} else {
		b = o.appendOutput((*bp)[:0], requestID, sp, p)
		h["Content-Type"] = o.Service.contentType()
	}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(o.Status)
	_, err = w.Write(b)
	putBuffer(bp, b)
	if err != nil {
		return fmt.Errorf("write the reply of %s: %w", o.Name, err)
	}
	return nil
}

// AppendOutput appends the body of a successful reply to b.
func (o *OperationModel) AppendOutput(b []byte, requestID string, out any) ([]byte, error) {
	t, p, err := structAddr(out)
	if err != nil {
		return b, err
	}
	sp, err := o.outputPlan(t)
	if err != nil {
		return b, err
	}
	return o.appendOutput(b, requestID, sp, p), nil
}

func (o *OperationModel) appendOutput(b []byte, requestID string, sp *structPlan, p unsafe.Pointer) []byte {
	switch o.Service.Protocol {
	case JSON:
		return appendJSON(b, sp, p)
	case RESTJSON:
		if sp.payload >= 0 {
			f := &sp.fields[sp.payload]
			if q, ok := f.v.load(f.at(p)); ok && f.v.kind == kindStruct {
				return appendJSON(b, f.v.st, q)
			}
		}
		return appendJSON(b, sp, p)
	case Query:
		return o.appendQueryReply(b, requestID, sp, p)
	default:
		return o.appendEC2Reply(b, requestID, sp, p)
	}
}

var (
	typeJSON11 = []string{"application/x-amz-json-1.1"}
	typeJSON   = []string{"application/json"}
	typeXML    = []string{"text/xml"}
	typeEC2XML = []string{"text/xml;charset=UTF-8"}
	typeStream = []string{"application/octet-stream"}
)

func (s *Service) contentType() []string {
	switch s.Protocol {
	case JSON:
		return typeJSON11
	case RESTJSON:
		return typeJSON
	case Query:
		return typeXML
	}
	return typeEC2XML
}

func (o *OperationModel) encodeStream(w http.ResponseWriter, sp *structPlan, p unsafe.Pointer) error {
	f := &sp.fields[sp.payload]
	h := w.Header()
	h["Content-Type"] = typeStream
	var r io.Reader
	if _, ok := f.v.load(f.at(p)); ok {
		r = readerOf(f.v, f.at(p))
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	if l, ok := r.(interface{ Len() int }); ok {
		h["Content-Length"] = []string{strconv.Itoa(l.Len())}
	}
	w.WriteHeader(o.Status)
	if r == nil {
		return nil
	}
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("write the stream of %s: %w", o.Name, err)
	}
	return nil
}

// AppendInput appends the JSON body of a request to b: the client's side of Decode,
// for JSON and RESTJSON.
func (o *OperationModel) AppendInput(b []byte, in any) ([]byte, error) {
	t, p, err := structAddr(in)
	if err != nil {
		return b, err
	}
	sp, err := o.inputPlan(t)
	if err != nil {
		return b, err
	}
	if o.Service.Protocol != JSON && o.Service.Protocol != RESTJSON {
		return b, fmt.Errorf("wire: requests in %v are not encoded here", o.Service.Protocol)
	}
	return appendJSON(b, sp, p), nil
}
