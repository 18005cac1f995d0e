package wire

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
)

// Kind is a failure that every service has and each protocol names its own
// way.
type Kind string

const (
	Serialization    Kind = "Serialization"    // the body cannot be read as the operation's input
	MalformedQuery   Kind = "MalformedQuery"   // the form is not a form
	UnknownOperation Kind = "UnknownOperation" // no such operation, or not served here
	MissingAction    Kind = "MissingAction"    // the request names no operation
	Validation       Kind = "Validation"       // a constraint of the model is broken
	MissingParameter Kind = "MissingParameter" // EC2: a required member is missing
	Unsupported      Kind = "Unsupported"      // a member or value that is known and not supported here
	TooLarge         Kind = "TooLarge"         // the body is too large
	AccessDenied     Kind = "AccessDenied"     // policy says no
	Throttled        Kind = "Throttled"        // too many requests
	Unavailable      Kind = "Unavailable"      // try again later
	Internal         Kind = "Internal"         // our fault

	// Those of package sigv4.
	MissingAuthenticationToken = Kind(sigv4.MissingAuthenticationToken)
	IncompleteSignature        = Kind(sigv4.IncompleteSignature)
	InvalidClientTokenID       = Kind(sigv4.InvalidClientTokenID)
	SignatureDoesNotMatch      = Kind(sigv4.SignatureDoesNotMatch)
	SignatureExpired           = Kind(sigv4.SignatureExpired)
	RequestExpired             = Kind(sigv4.RequestExpired)
	ExpiredToken               = Kind(sigv4.ExpiredToken)
)

// An Error is a failure of a kind that every service has. It becomes the
// service's own code and status in EncodeError; ErrorCode alone gives the kind.
type Error struct {
	Kind    Kind
	Message string
	Member  string // the dotted wire name of the member at fault, if one is
}

func (e *Error) Error() string                 { return string(e.Kind) + ": " + e.ErrorMessage() }
func (e *Error) ErrorCode() string             { return string(e.Kind) }
func (e *Error) ErrorFault() smithy.ErrorFault { return smithy.FaultClient }

// ErrorMessage is the text for the client.
func (e *Error) ErrorMessage() string {
	if e.Kind == Serialization && e.Member != "" {
		return e.Message + " (at " + clip(e.Member) + ")"
	}
	return e.Message
}

func serialization(msg string) error { return &Error{Kind: Serialization, Message: msg} }

// within adds the name of the member an error happened in.
func within(err error, name string) error {
	if e, ok := err.(*Error); ok {
		if e.Member == "" {
			e.Member = name
		} else {
			e.Member = name + "." + e.Member
		}
	}
	return err
}

// RequestTooLarge is the refusal of a body above the limit.
func RequestTooLarge(limit int64) error {
	return &Error{Kind: TooLarge, Message: "The request is larger than " + strconv.FormatInt(limit, 10) + " bytes"}
}

// Denied is the refusal by policy, in the service's own code.
func Denied(message string) error { return &Error{Kind: AccessDenied, Message: message} }

// UnsupportedMembers refuses members that the API has and this server does not support,
// by name.
func UnsupportedMembers(op string, members ...string) error {
	noun, verb := "parameter ", " is"
	if len(members) > 1 {
		noun, verb = "parameters ", " are"
	}
	e := &Error{Kind: Unsupported, Message: "The " + noun + strings.Join(members, ", ") + " of " + op + verb + " not supported on this server"}
	if len(members) > 0 {
		e.Member = members[0]
	}
	return e
}

type codeStatus struct {
	code   string
	status int
}

// kinds gives code and status of each kind, by protocol.
var kinds = map[Kind][4]codeStatus{
	//                 awsJson, Query, EC2, REST-JSON
	Serialization:              {{"SerializationException", 400}, {"MalformedInput", 400}, {"InvalidParameterValue", 400}, {"SerializationException", 400}},
	MalformedQuery:             {{"SerializationException", 400}, {"MalformedQueryString", 400}, {"MalformedQueryString", 400}, {"SerializationException", 400}},
	UnknownOperation:           {{"UnknownOperationException", 400}, {"InvalidAction", 400}, {"InvalidAction", 400}, {"UnknownOperationException", 404}},
	MissingAction:              {{"UnknownOperationException", 400}, {"MissingAction", 400}, {"MissingAction", 400}, {"UnknownOperationException", 404}},
	Validation:                 {{"ValidationException", 400}, {"ValidationError", 400}, {"InvalidParameterValue", 400}, {"ValidationException", 400}},
	MissingParameter:           {{"ValidationException", 400}, {"ValidationError", 400}, {"MissingParameter", 400}, {"ValidationException", 400}},
	Unsupported:                {{"UnsupportedOperationException", 400}, {"ValidationError", 400}, {"UnsupportedOperation", 400}, {"ValidationException", 400}},
	TooLarge:                   {{"RequestEntityTooLargeException", 413}, {"RequestEntityTooLarge", 413}, {"RequestEntityTooLarge", 413}, {"RequestEntityTooLargeException", 413}},
	AccessDenied:               {{"AccessDeniedException", 400}, {"AccessDenied", 403}, {"UnauthorizedOperation", 403}, {"AccessDeniedException", 403}},
	Throttled:                  {{"ThrottlingException", 400}, {"Throttling", 400}, {"RequestLimitExceeded", 503}, {"ThrottlingException", 429}},
	Unavailable:                {{"ServiceUnavailableException", 503}, {"ServiceUnavailable", 503}, {"Unavailable", 503}, {"ServiceUnavailableException", 503}},
	Internal:                   {{"InternalFailure", 500}, {"InternalFailure", 500}, {"InternalError", 500}, {"InternalFailure", 500}},
	MissingAuthenticationToken: {{"MissingAuthenticationTokenException", 400}, {"MissingAuthenticationToken", 403}, {"MissingAuthenticationToken", 403}, {"MissingAuthenticationTokenException", 403}},
	IncompleteSignature:        {{"IncompleteSignatureException", 400}, {"IncompleteSignature", 400}, {"IncompleteSignature", 400}, {"IncompleteSignatureException", 403}},
	InvalidClientTokenID:       {{"UnrecognizedClientException", 400}, {"InvalidClientTokenId", 403}, {"AuthFailure", 401}, {"UnrecognizedClientException", 403}},
	SignatureDoesNotMatch:      {{"InvalidSignatureException", 400}, {"SignatureDoesNotMatch", 403}, {"AuthFailure", 401}, {"InvalidSignatureException", 403}},
	SignatureExpired:           {{"InvalidSignatureException", 400}, {"SignatureDoesNotMatch", 403}, {"RequestExpired", 400}, {"InvalidSignatureException", 403}},
	RequestExpired:             {{"InvalidSignatureException", 400}, {"RequestExpired", 400}, {"RequestExpired", 400}, {"InvalidSignatureException", 403}},
	ExpiredToken:               {{"ExpiredTokenException", 400}, {"ExpiredToken", 403}, {"RequestExpired", 400}, {"ExpiredTokenException", 403}},
}

// An ErrorReply is how an error looks to a client of one service; it is also what
// its audit record says.
type ErrorReply struct {
	Code    string
	Message string
	Status  int
	detail  any // the SDK's error struct, whose further members are sent too
	shape   string
}

// Resolve turns an error into the service's reply: an Error or sigv4.Error
// into the service's code of that kind, a smithy.APIError (an error type of the SDK, or
// smithy.GenericAPIError) into itself with the status of the model; anything else
// is an internal failure that says nothing of its cause.
func (s *Service) Resolve(err error) ErrorReply {
	var we *Error
	var se *sigv4.Error
	var ae smithy.APIError
	switch {
	case errors.As(err, &we):
		return s.kindReply(we.Kind, we.ErrorMessage())
	case errors.As(err, &se):
		return s.kindReply(Kind(se.Code), se.Message)
	case errors.As(err, &ae):
		r := ErrorReply{Code: ae.ErrorCode(), Message: ae.ErrorMessage(), detail: ae}
		if row, ok := s.table().errors[r.Code]; ok {
			r.Status, r.shape = row.status, row.shape
		} else if st, ok := commonStatus[r.Code]; ok {
			r.Status = st
		} else if r.Status = http.StatusBadRequest; ae.ErrorFault() == smithy.FaultServer {
			r.Status = http.StatusInternalServerError
		}
		if s.Protocol == JSON {
			// The models give no statuses for awsJson services; these are documented.
			if st, ok := jsonStatus[s.Name+"."+r.Code]; ok {
				r.Status = st
			}
		}
		return r
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return s.kindReply(Unavailable, "The request was not finished in time. Try again.")
	}
	return s.kindReply(Internal, "An internal error has occurred")
}

func (s *Service) kindReply(k Kind, message string) ErrorReply {
	row, ok := kinds[k]
	if !ok {
		row = kinds[Internal]
	}
	cs := row[s.Protocol]
	if s.Name == "workspaces" && k == Unsupported {
		cs.code = "OperationNotSupportedException"
	}
	return ErrorReply{Code: cs.code, Message: message, Status: cs.status}
}

var commonStatus = map[string]int{
	"AccessDenied": 403, "InvalidClientTokenId": 403, "UnauthorizedOperation": 403, "AuthFailure": 401, "DryRunOperation": 412,
	"InternalFailure": 500, "InternalError": 500, "InternalServerException": 500, "ServiceUnavailable": 503, "Unavailable": 503,
	"RequestLimitExceeded": 503, "ServiceUnavailableException": 503, "ThrottlingException": 400, "OptInRequired": 403,
}

var jsonStatus = map[string]int{
	"kms.DependencyTimeoutException": 503,
}

// EncodeError writes err as the service's clients read it.
func (s *Service) EncodeError(w http.ResponseWriter, requestID string, err error) error {
	return s.WriteError(w, requestID, s.Resolve(err))
}

// WriteError writes a resolved error.
func (s *Service) WriteError(w http.ResponseWriter, requestID string, r ErrorReply) error {
	h := w.Header()
	h["X-Amzn-Requestid"] = []string{requestID}
	h["Content-Type"] = s.contentType()
	var b []byte
	switch s.Protocol {
	case JSON, RESTJSON:
		if s.Protocol == RESTJSON {
			h["X-Amzn-Errortype"] = []string{r.Code}
		}
		b = s.appendJSONError(nil, h, r)
	case Query:
		fault := "Sender"
		if r.Status >= 500 {
			fault = "Receiver"
		}
		if _, asJSON := w.(jsonReply); asJSON {
			h["Content-Type"] = typeJSON
			b = appendQueryJSONError(nil, requestID, fault, r)
			break
		}
		b = append(b, `<ErrorResponse xmlns="`...)
		b = append(b, s.XMLNamespace...)
		b = append(b, `"><Error><Type>`...)
		b = append(b, fault...)
		b = append(b, "</Type><Code>"...)
		b = appendXMLText(b, r.Code)
		b = append(b, "</Code><Message>"...)
		b = appendXMLText(b, r.Message)
		b = append(b, "</Message></Error><RequestId>"...)
		b = appendXMLText(b, requestID)
		b = append(b, "</RequestId></ErrorResponse>"...)
	case EC2Query:
		b = append(b, xmlHeader...)
		b = append(b, "<Response><Errors><Error><Code>"...)
		b = appendXMLText(b, r.Code)
		b = append(b, "</Code><Message>"...)
		b = appendXMLText(b, r.Message)
		b = append(b, "</Message></Error></Errors><RequestID>"...)
		b = appendXMLText(b, requestID)
		b = append(b, "</RequestID></Response>"...)
	}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(r.Status)
	_, err := w.Write(b)
	return err
}

// appendJSONError writes {"__type": code, "message": …} and the further members of
// a modelled error. An error without message has no such member, as
// KMS answers a ciphertext it cannot open.
func (s *Service) appendJSONError(b []byte, h http.Header, r ErrorReply) []byte {
	b = append(b, `{"__type":`...)
	b = appendJSONString(b, r.Code)
	key := "message"
	if sh := s.table().shapes[r.shape]; sh != nil {
		if m := sh.members["Message"]; m != nil {
			key = m.name
		}
	}
	if r.Message != "" {
		b = append(b, ',', '"')
		b = append(b, key...)
		b = append(b, '"', ':')
		b = appendJSONString(b, r.Message)
	}
	if r.shape != "" && r.detail != nil {
		if t, p, err := structAddr(r.detail); err == nil && t.Kind() == reflect.Struct {
			if sp, err := s.plan(t, r.shape); err == nil {
				for i := range sp.fields {
					f := &sp.fields[i]
					if f.goName == "Message" {
						continue
					}
					q, ok := f.v.load(f.at(p))
					if !ok {
						continue
					}
					if f.loc == 'h' {
						if text, err := f.v.text(q); err == nil {
							h.Set(f.locName, text)
						}
						continue
					}
					b = append(b, ',')
					b = append(b, f.jsonKey...)
					b = appendJSONValue(b, f.v, q)
				}
			}
		}
	}
	return append(b, '}')
}
