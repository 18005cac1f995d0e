package wire

import (
	"net/http"
	"strings"
	"unsafe"
)

// A Query service answers in JSON when it is asked to: the members of the XML
// reply with timestamps as in awsJson. The SDKs do not ask; clients that send on a signed
// GetCallerIdentity do (aws-iam-authenticator, Vault).

// Accepting is w, marked for JSON when r asks a Query service for it.
func (s *Service) Accepting(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	if a := r.Header.Get("Accept"); s.Protocol == Query && strings.HasPrefix(a, "application/json") {
		return jsonReply{w}
	}
	return w
}

type jsonReply struct{ http.ResponseWriter }

// appendQueryJSON writes {"XResponse":{"XResult":{…},"ResponseMetadata":{"RequestId":…}}}.
func (o *OperationModel) appendQueryJSON(b []byte, requestID string, sp *structPlan, p unsafe.Pointer) []byte {
	b = append(b, `{"`+o.Name+`Response":{`...)
	if o.output != "" {
		b = append(b, `"`+o.Name+`Result":`...)
		b = append(appendJSON(b, sp, p), ',')
	}
	b = append(b, `"ResponseMetadata":{"RequestId":`...)
	return append(appendJSONString(b, requestID), "}}}"...)
}

func appendQueryJSONError(b []byte, requestID, fault string, r ErrorReply) []byte {
	b = append(b, `{"Error":{"Code":`...)
	b = appendJSONString(b, r.Code)
	b = append(b, `,"Message":`...)
	b = appendJSONString(b, r.Message)
	b = append(b, `,"Type":"`+fault+`"},"RequestId":`...)
	return append(appendJSONString(b, requestID), '}')
}
