package wire

import (
	"net/http"
	"net/url"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// Protocol is how a service's operations are written on the wire.
type Protocol uint8

const (
	JSON     Protocol = iota // awsJson 1.1: POST /, X-Amz-Target, JSON both ways
	Query                    // AWS Query: form in, XML out
	EC2Query                 // the dialect of Query that EC2 speaks
	RESTJSON                 // method and path name the operation, JSON bodies
)

func (p Protocol) String() string {
	return [...]string{"awsJson1_1", "awsQuery", "ec2Query", "restJson1"}[p]
}

// A Service is one AWS service as its clients see it.
type Service struct {
	Name         string // as IAM actions and the tables name it: "kms", "ds"
	SigningName  string // in the credential scope of a signature
	Protocol     Protocol
	TargetPrefix string // awsJson: before the dot of X-Amz-Target
	XMLNamespace string // Query, EC2
	APIVersion   string
	EventSource  string // in CloudTrail records

	once  sync.Once
	tab   *table
	plans planCache
}

var services = []*Service{
	{Name: "kms", SigningName: "kms", Protocol: JSON, TargetPrefix: "TrentService", APIVersion: "2014-11-01", EventSource: "kms.amazonaws.com"},
	{Name: "iam", SigningName: "iam", Protocol: Query, XMLNamespace: "https://iam.amazonaws.com/doc/2010-05-08/", APIVersion: "2010-05-08", EventSource: "iam.amazonaws.com"},
	{Name: "sts", SigningName: "sts", Protocol: Query, XMLNamespace: "https://sts.amazonaws.com/doc/2011-06-15/", APIVersion: "2011-06-15", EventSource: "sts.amazonaws.com"},
	{Name: "ec2", SigningName: "ec2", Protocol: EC2Query, XMLNamespace: "http://ec2.amazonaws.com/doc/2016-11-15/", APIVersion: "2016-11-15", EventSource: "ec2.amazonaws.com"},
	{Name: "ebs", SigningName: "ebs", Protocol: RESTJSON, APIVersion: "2019-11-02", EventSource: "ebs.amazonaws.com"},
	{Name: "cloudtrail", SigningName: "cloudtrail", Protocol: JSON, TargetPrefix: "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101", APIVersion: "2013-11-01", EventSource: "cloudtrail.amazonaws.com"},
	{Name: "workspaces", SigningName: "workspaces", Protocol: JSON, TargetPrefix: "WorkspacesService", APIVersion: "2015-04-08", EventSource: "workspaces.amazonaws.com"},
	{Name: "ds", SigningName: "ds", Protocol: JSON, TargetPrefix: "DirectoryService_20150416", APIVersion: "2015-04-16", EventSource: "ds.amazonaws.com"},
	{Name: "ds-data", SigningName: "ds-data", Protocol: RESTJSON, APIVersion: "2023-05-31", EventSource: "ds-data.amazonaws.com"},
	{Name: "rbin", SigningName: "rbin", Protocol: RESTJSON, APIVersion: "2021-06-15", EventSource: "rbin.amazonaws.com"},
	{Name: "sealdesk", SigningName: "sealdesk", Protocol: JSON, TargetPrefix: "Sealdesk_20261101", APIVersion: "2026-11-01", EventSource: "sealdesk.amazonaws.com"}, // ours
}

// Services returns all services that are served, in a fixed order.
func Services() []*Service { return append([]*Service(nil), services...) }

// Default is the service whose manner of speaking a request is answered in when it
// names none.
func Default() *Service { return services[0] }

// Lookup finds a service by the service name in a credential scope.
func Lookup(signingName string) (*Service, bool) {
	for _, s := range services {
		if s.SigningName == signingName {
			return s, true
		}
	}
	return nil, false
}

// Guess finds the service of a request that names none in a signature, so
// that it can be refused in the protocol its sender reads. It looks at
// X-Amz-Target, the API version of a form, the host name and the path, and
// returns nil when nothing tells.
func Guess(r *http.Request, body []byte) *Service {
	if prefix, _, ok := cutLast(r.Header.Get("X-Amz-Target"), "."); ok {
		for _, s := range services {
			if s.Protocol == JSON && targetMatches(s, prefix) {
				return s
			}
		}
	}
	if v := param(r, body, "Version"); v != "" {
		for _, s := range services {
			if (s.Protocol == Query || s.Protocol == EC2Query) && s.APIVersion == v {
				return s
			}
		}
	}
	host, _, _ := strings.Cut(r.Host, ".")
	if s, ok := Lookup(host); ok {
		return s
	}
	for _, s := range services {
		if s.Protocol == RESTJSON {
			if op := s.route(r); op != nil {
				return s
			}
		}
	}
	return nil
}

func targetMatches(s *Service, prefix string) bool {
	if prefix == s.TargetPrefix {
		return true
	}
	_, short, ok := cutLast(s.TargetPrefix, ".")
	return ok && prefix == short // CloudTrail answers to the short form as well
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Detect names the operation of a request: the part of X-Amz-Target behind the
// dot, the parameter Action, or the operation whose method and path match. The
// error, of kind UnknownOperation or MissingAction, is ready for EncodeError; the
// name is returned with it when the request had one.
func (s *Service) Detect(r *http.Request, body []byte) (op string, err error) {
	switch s.Protocol {
	case JSON:
		target := r.Header.Get("X-Amz-Target")
		if target == "" {
			return "", &Error{Kind: MissingAction, Message: "The request must have the header X-Amz-Target: " + s.TargetPrefix + ".<operation>"}
		}
		prefix, name, ok := cutLast(target, ".")
		if !ok || !targetMatches(s, prefix) {
			return name, &Error{Kind: UnknownOperation, Message: "The target " + quote(target) + " is not one of " + s.Name + ", whose targets begin with " + s.TargetPrefix + "."}
		}
		op = name
	case Query, EC2Query:
		if op = param(r, body, "Action"); op == "" {
			return "", &Error{Kind: MissingAction, Message: "The request must contain the parameter Action"}
		}
		if v := param(r, body, "Version"); s.Protocol == Query && v != s.APIVersion {
			return op, noSuchVersion(op, v)
		}
	case RESTJSON:
		m := s.route(r)
		if m == nil {
			return "", &Error{Kind: UnknownOperation, Message: "No operation of " + s.Name + " has the method " + r.Method + " and the path " + quote(r.URL.Path)}
		}
		return m.Name, nil
	}
	if _, ok := s.Operation(op); !ok {
		return op, s.unknownOperation(op)
	}
	return op, nil
}

func (s *Service) unknownOperation(op string) error {
	switch s.Protocol {
	case Query:
		return noSuchVersion(op, s.APIVersion)
	case EC2Query:
		return &Error{Kind: UnknownOperation, Message: "The action " + clip(op) + " is not valid for this web service."}
	}
	return &Error{Kind: UnknownOperation, Message: "The operation " + quote(op) + " is not one of " + s.Name}
}

// noSuchVersion is AWS's answer to an operation that the version of the API lacks.
func noSuchVersion(op, version string) error {
	if version == "" {
		version = "NO_VERSION_SPECIFIED"
	}
	return &Error{Kind: UnknownOperation, Message: "Could not find operation " + clip(op) + " for version " + clip(version)}
}

// NotServed is the refusal of an operation that the model knows and this
// server does not have: the code of an unknown operation, with a text that
// tells the two apart.
func (s *Service) NotServed(op string) error {
	return &Error{Kind: UnknownOperation, Message: "The operation " + clip(op) + " of " + s.Name + " is not available on this server"}
}

// Operation finds an operation of the model, served or not.
func (s *Service) Operation(name string) (*OperationModel, bool) {
	op, ok := s.table().ops[name]
	return op, ok
}

// Operations lists the names of all operations of the model, sorted.
func (s *Service) Operations() []string {
	t := s.table()
	names := make([]string, 0, len(t.ops))
	for n := range t.ops {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// An OperationModel is one operation as the API model describes it.
type OperationModel struct {
	Service *Service
	Name    string
	Method  string
	URI     string // with {labels}
	Status  int    // of a successful reply
	NoAuth  bool   // called without a signature (sts AssumeRoleWithSAML, …)

	input, output string   // shapes
	segments      []string // of the URI's path
	in, out       atomic.Pointer[structPlan]
}

func (o *OperationModel) parseURI() {
	path, _, _ := strings.Cut(o.URI, "?")
	o.segments = strings.Split(strings.TrimPrefix(path, "/"), "/")
}

// match compares a path with the operation's and returns its labels.
func (o *OperationModel) match(path string, label func(name, value string)) bool {
	rest := strings.TrimPrefix(path, "/")
	for i, want := range o.segments {
		seg, tail, more := strings.Cut(rest, "/")
		if more != (i < len(o.segments)-1) {
			return false
		}
		if strings.HasPrefix(want, "{") {
			v, err := url.PathUnescape(seg)
			if err != nil || v == "" {
				return false
			}
			if label != nil {
				label(strings.Trim(want, "{}+"), v)
			}
		} else if seg != want {
			return false
		}
		rest = tail
	}
	return true
}

func (s *Service) route(r *http.Request) *OperationModel {
	path := r.URL.EscapedPath()
	for _, op := range s.table().ops {
		if op.Method == r.Method && op.match(path, nil) {
			return op
		}
	}
	return nil
}

// param reads one form parameter from the query string or the body.
func param(r *http.Request, body []byte, name string) string {
	if v, ok := formValue(r.URL.RawQuery, name); ok {
		return v
	}
	if isForm(r) {
		v, _ := formValue(string(body), name)
		return v
	}
	return ""
}

func isForm(r *http.Request) bool {
	ct := r.Header.Get("Content-Type")
	return ct == "" || strings.HasPrefix(ct, "application/x-www-form-urlencoded")
}

func formValue(form, name string) (string, bool) {
	for form != "" {
		var pair string
		pair, form, _ = strings.Cut(form, "&")
		if k, v, _ := strings.Cut(pair, "="); k == name {
			if v, err := url.QueryUnescape(v); err == nil {
				return v, true
			}
		}
	}
	return "", false
}

// clip keeps what clients sent short in messages.
func clip(s string) string {
	if len(s) > 100 {
		s = strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

func quote(s string) string { return "'" + clip(s) + "'" }
