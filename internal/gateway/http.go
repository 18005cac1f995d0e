package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/wire"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
)

// streamLimit bounds the body of an operation that streams (an EBS block is 512 KiB).
const streamLimit = 4 << 20

// ServeHTTP answers a call from outside. The order of the stages is the contract:
// what the service and operation are, who signed it, what it says, whether it is
// allowed; so that an unsigned caller learns nothing but that.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	requestID := ids.UUID()
	svc := wire.Default()
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("panic while answering", "requestId", requestID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			_ = svc.EncodeError(w, requestID, internalFailure)
		}
	}()
	auth, authErr := sigv4.Parse(r)
	limit := g.cfg.MaxBody
	if auth != nil && auth.Service == "ebs" {
		limit = streamLimit
	}
	body, err := readBody(w, r, limit)
	if err != nil {
		if s := service(auth, r, nil); s != nil {
			svc = s
		}
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			err = wire.RequestTooLarge(limit)
		} else {
			err = &wire.Error{Kind: wire.Serialization, Message: "The request body could not be read: " + err.Error()}
		}
		g.reply(w, svc, requestID, err)
		return
	}
	s := service(auth, r, body)
	if s == nil {
		g.unknownService(w, requestID, auth, authErr)
		return
	}
	svc = s
	w = svc.Accepting(w, r)
	c := &api.Call{RequestID: requestID, Time: g.now(), UserAgent: r.UserAgent(), Secure: r.TLS != nil, TLS: tlsDetails(r)}
	c.SourceIP, _, _ = net.SplitHostPort(r.RemoteAddr)
	out, op, err := g.answer(r, svc, body, auth, authErr, c)
	if err != nil {
		g.reply(w, svc, requestID, err)
		return
	}
	if err := op.Encode(w, requestID, out); err != nil {
		g.log.Debug("reply not delivered", "requestId", requestID, "err", err)
	}
}

// readBody is the whole body. Nothing keeps it when the call is over: what is
// decoded from it is copied.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if in, ok := r.Body.(interface{ Whole() []byte }); ok && r.ContentLength <= limit { // the front has read it
		return in.Whole(), nil
	}
	body := http.MaxBytesReader(w, r.Body, limit)
	if r.ContentLength < 0 || r.ContentLength > limit {
		return io.ReadAll(body)
	}
	b := bytes.NewBuffer(make([]byte, 0, min(r.ContentLength, 64<<10)+bytes.MinRead))
	_, err := b.ReadFrom(body)
	return b.Bytes(), err
}

// service is what the signature's scope names, else what the request looks like.
func service(auth *sigv4.Auth, r *http.Request, body []byte) *wire.Service {
	if auth != nil {
		if s, ok := wire.Lookup(auth.Service); ok {
			return s
		}
		return nil
	}
	return wire.Guess(r, body)
}

// unknownService answers a request for a service that nobody here speaks.
func (g *Gateway) unknownService(w http.ResponseWriter, requestID string, auth *sigv4.Auth, authErr error) {
	w.Header().Set("X-Amzn-Requestid", requestID)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if authErr != nil {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}`)
		return
	}
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"__type":"UnknownOperationException","message":"The service %.40q is not served here. Served: iam, sts, kms, ec2, ebs, workspaces, ds, ds-data, cloudtrail."}`, auth.Service)
}

func (g *Gateway) reply(w http.ResponseWriter, svc *wire.Service, requestID string, err error) {
	if werr := svc.EncodeError(w, requestID, err); werr != nil {
		g.log.Debug("error reply not delivered", "requestId", requestID, "err", werr)
	}
}

// answer authenticates, decodes and runs. A call that fails before it can run
// leaves a record too, once its sender is known.
func (g *Gateway) answer(r *http.Request, svc *wire.Service, body []byte, auth *sigv4.Auth, authErr error, c *api.Call) (any, *wire.OperationModel, error) {
	name, detectErr := svc.Detect(r, body)
	op := g.ops[svc.Name][name]
	if op != nil && op.Internal {
		op = nil
	}
	model, known := svc.Operation(name)
	unsigned := op != nil && op.Unsigned && authErr != nil && errors.Is(authErr, error(sigv4.ErrMissing))
	if unsigned {
		c.Region, c.Principal = "us-east-1", api.Principal{Type: api.Anonymous}
	} else if err := g.authenticate(r, body, known && model.StreamingInput(), auth, authErr, c); err != nil {
		return nil, nil, err
	}
	c.Account = c.Principal.Account
	fail := func(err error) (any, *wire.OperationModel, error) {
		return nil, nil, g.rejected(r.Context(), svc, name, c, err)
	}
	if detectErr != nil {
		return fail(detectErr)
	}
	if op == nil || !known {
		return fail(svc.NotServed(name))
	}
	if !utf8.Valid(body) && !model.StreamingInput() {
		return fail(&wire.Error{Kind: wire.Serialization, Message: "The request body is not valid UTF-8."})
	}
	in := reflect.New(op.In).Interface()
	unknown := ""
	err := model.Decode(r, body, in, func(member string) {
		if svc.Protocol == wire.EC2Query {
			unknown = member
			return
		}
		g.log.Warn("unknown parameter ignored", "operation", svc.Name+":"+name, "parameter", member, "requestId", c.RequestID)
	})
	if err == nil && unknown != "" {
		// EC2 alone refuses what it does not know. Source: EC2 API Reference, "Client error codes".
		err = &smithy.GenericAPIError{Code: "UnknownParameter", Message: "The parameter " + unknown + " is not recognized"}
	}
	if err != nil {
		return fail(err)
	}
	out, err := g.run(r.Context(), op, c, in)
	return out, model, err
}

// authenticate finds out who signed the call. A body that carries a checksum of its
// own need not be signed.
func (g *Gateway) authenticate(r *http.Request, body []byte, unsignedBody bool, auth *sigv4.Auth, authErr error, c *api.Call) error {
	if authErr != nil {
		return authErr
	}
	c.Region = auth.Region
	cred, err := g.cfg.Identities.Credential(r.Context(), auth.AccessKeyID, auth.SessionToken, c.Time)
	switch {
	case errors.Is(err, api.ErrExpiredToken):
		return sigv4.ErrExpiredToken
	case errors.Is(err, api.ErrUnknownAccessKey), errors.Is(err, api.ErrInvalidToken):
		return sigv4.ErrUnknownAccessKey
	case err != nil:
		g.log.Error("credentials could not be looked up", "requestId", c.RequestID, "err", err)
		return internalFailure
	}
	b := sigv4.Body{Hash: sha256.Sum256(body), AllowUnsigned: unsignedBody}
	if err := g.verifier.Verify(auth, r, b, cred.SecretAccessKey.Expose(), c.Time); err != nil {
		return err
	}
	c.Principal = cred.Principal
	if u, ok := g.cfg.Identities.(useTracker); ok {
		u.Used(&c.Principal, auth.Service, auth.Region, c.Time)
	}
	return nil
}

// useTracker is told of each authenticated call, for the last-used dates of
// access keys and roles. It must be quick.
type useTracker interface {
	Used(p *api.Principal, service, region string, at time.Time)
}

// rejected records a call that was refused before it reached an operation.
func (g *Gateway) rejected(ctx context.Context, svc *wire.Service, name string, c *api.Call, err error) error {
	if name == "" {
		return err
	}
	if len(name) > 128 || !utf8.ValidString(name) {
		name = "Unknown"
	}
	op := &api.Operation{Service: svc.Name, Name: name}
	if known := g.ops[svc.Name][name]; known != nil {
		op.ReadOnly = known.ReadOnly
	}
	c.Record = g.newRecord(op, c, ids.UUID())
	r := svc.Resolve(err)
	resolved := &smithy.GenericAPIError{Code: r.Code, Message: r.Message}
	for _, rec := range g.finish(op, c, nil, nil, resolved, nil) {
		if aerr := g.cfg.Audit.Append(context.WithoutCancel(ctx), rec); aerr != nil {
			g.log.Error("audit record not durable", "requestId", c.RequestID, "err", aerr)
			return internalFailure
		}
	}
	return err
}

func tlsDetails(r *http.Request) *audit.TLSDetails {
	if r.TLS == nil {
		return nil
	}
	return &audit.TLSDetails{TLSVersion: tlsVersion(r.TLS.Version), CipherSuite: cipherSuite(r.TLS.CipherSuite), ClientProvidedHostHeader: r.Host}
}
