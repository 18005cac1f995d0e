package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Largest sizes of the parts of a record, in bytes. Source: CloudTrail User
// Guide, "CloudTrail record contents". What is longer is cut (text) or replaced
// by a note that says so (objects), so that a record's size is bounded.
const (
	maxText       = 1 << 10
	maxParameters = 100 << 10
	maxAdditional = 28 << 10
)

// appendRecord appends r as JSON, in the order of Record's fields, without a
// newline. It equals encoding/json's (without HTML escaping) and costs a
// fraction: this runs on every Decrypt.
func appendRecord(b []byte, r *Record) ([]byte, error) {
	b = append(b, `{"eventVersion":`...)
	b = appendString(b, r.EventVersion)
	b = append(b, `,"userIdentity":`...)
	b = appendIdentity(b, &r.UserIdentity)
	b = append(b, `,"eventTime":"`...)
	b = r.EventTime.UTC().AppendFormat(b, "2006-01-02T15:04:05Z")
	b = append(b, `","eventSource":`...)
	b = appendString(b, r.EventSource)
	b = append(b, `,"eventName":`...)
	b = appendString(b, r.EventName)
	b = append(b, `,"awsRegion":`...)
	b = appendString(b, r.AWSRegion)
	b = append(b, `,"sourceIPAddress":`...)
	b = appendString(b, r.SourceIPAddress)
	b = append(b, `,"userAgent":`...)
	b = appendString(b, cut(r.UserAgent))
	b = appendOptional(b, `,"errorCode":`, cut(r.ErrorCode))
	b = appendOptional(b, `,"errorMessage":`, cut(r.ErrorMessage))
	var err error
	b = append(b, `,"requestParameters":`...)
	if b, err = appendObject(b, r.RequestParameters, maxParameters); err != nil {
		return b, fmt.Errorf("requestParameters of %s: %w", r.EventName, err)
	}
	b = append(b, `,"responseElements":`...)
	if b, err = appendObject(b, r.ResponseElements, maxParameters); err != nil {
		return b, fmt.Errorf("responseElements of %s: %w", r.EventName, err)
	}
	if len(r.AdditionalEventData) > 0 {
		b = append(b, `,"additionalEventData":`...)
		if b, err = appendObject(b, r.AdditionalEventData, maxAdditional); err != nil {
			return b, fmt.Errorf("additionalEventData of %s: %w", r.EventName, err)
		}
	}
	b = appendOptional(b, `,"requestID":`, r.RequestID)
	b = append(b, `,"eventID":`...)
	b = appendString(b, r.EventID)
	b = append(b, `,"readOnly":`...)
	b = strconv.AppendBool(b, r.ReadOnly)
	if len(r.Resources) > 0 {
		b = append(b, `,"resources":[`...)
		for i := range r.Resources {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, '{')
			if s := r.Resources[i].AccountID; s != "" {
				b = append(appendString(append(b, `"accountId":`...), s), ',')
			}
			if s := r.Resources[i].Type; s != "" {
				b = append(appendString(append(b, `"type":`...), s), ',')
			}
			b = append(appendString(append(b, `"ARN":`...), r.Resources[i].ARN), '}')
		}
		b = append(b, ']')
	}
	b = append(b, `,"eventType":`...)
	b = appendString(b, r.EventType)
	b = append(b, `,"managementEvent":`...)
	b = strconv.AppendBool(b, r.ManagementEvent)
	b = append(b, `,"recipientAccountId":`...)
	b = appendString(b, r.RecipientAccountID)
	if len(r.ServiceEventDetails) > 0 {
		b = append(b, `,"serviceEventDetails":`...)
		if b, err = appendObject(b, r.ServiceEventDetails, maxAdditional); err != nil {
			return b, fmt.Errorf("serviceEventDetails of %s: %w", r.EventName, err)
		}
	}
	b = appendOptional(b, `,"sharedEventID":`, r.SharedEventID)
	b = append(b, `,"eventCategory":`...)
	b = appendString(b, r.EventCategory)
	if t := r.TLSDetails; t != nil {
		b = appendString(append(b, `,"tlsDetails":{"tlsVersion":`...), t.TLSVersion)
		b = appendString(append(b, `,"cipherSuite":`...), t.CipherSuite)
		b = append(appendString(append(b, `,"clientProvidedHostHeader":`...), t.ClientProvidedHostHeader), '}')
	}
	b = appendOptional(b, `,"sessionCredentialFromConsole":`, r.SessionCredentialFromConsole)
	return append(b, '}'), nil
}

func appendIdentity(b []byte, u *UserIdentity) []byte {
	start := len(b)
	b = appendOptional(b, `,"type":`, u.Type)
	b = appendOptional(b, `,"principalId":`, u.PrincipalID)
	b = appendOptional(b, `,"arn":`, u.ARN)
	b = appendOptional(b, `,"accountId":`, u.AccountID)
	b = appendOptional(b, `,"accessKeyId":`, u.AccessKeyID)
	b = appendOptional(b, `,"userName":`, u.UserName)
	if s := u.SessionContext; s != nil {
		b = append(b, `,"sessionContext":{`...)
		if i := s.SessionIssuer; i != nil {
			b = appendString(append(b, `"sessionIssuer":{"type":`...), i.Type)
			b = appendString(append(b, `,"principalId":`...), i.PrincipalID)
			b = appendString(append(b, `,"arn":`...), i.ARN)
			b = appendString(append(b, `,"accountId":`...), i.AccountID)
			b = append(appendString(append(b, `,"userName":`...), i.UserName), '}')
		}
		if len(s.Attributes) > 0 {
			if s.SessionIssuer != nil {
				b = append(b, ',')
			}
			b = append(b, `"attributes":`...)
			b = appendStringMap(b, s.Attributes)
		}
		b = append(b, '}')
	}
	b = appendOptional(b, `,"invokedBy":`, u.InvokedBy)
	if len(b) == start {
		return append(b, "{}"...)
	}
	b[start] = '{' // the first member's comma
	return append(b, '}')
}

// appendOptional appends a member that is left out when empty.
func appendOptional(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, name...), s)
}

// cut shortens s to maxText bytes without splitting a character.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	s = s[:maxText]
	for len(s) > maxText-utf8.UTFMax && !utf8.ValidString(s[len(s)-1:]) {
		r, size := utf8.DecodeLastRuneInString(s)
		if r != utf8.RuneError || size != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}

// appendObject appends m, null when nil; one longer than limit is replaced by a
// note, so that it is not mistaken for what the caller sent.
func appendObject(b []byte, m map[string]any, limit int) ([]byte, error) {
	if m == nil {
		return append(b, "null"...), nil
	}
	start := len(b)
	b, err := appendAny(b, m)
	if err != nil {
		return b, err
	}
	if n := len(b) - start; n > limit {
		b = append(b[:start], `{"omitted":true,"originalSize":`...)
		b = append(strconv.AppendInt(b, int64(n), 10), '}')
	}
	return b, nil
}

func appendStringMap(b []byte, m map[string]string) []byte {
	var stack [16]string
	keys := stack[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		b = appendString(b, m[k])
	}
	return append(b, '}')
}

func appendAny(b []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case string:
		return appendString(b, v), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case int32:
		return strconv.AppendInt(b, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case map[string]any:
		if v == nil {
			return append(b, "null"...), nil
		}
		var stack [16]string
		keys := stack[:0]
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, k), ':')
			if b, err = appendAny(b, v[k]); err != nil {
				return b, err
			}
		}
		return append(b, '}'), nil
	case map[string]string:
		if v == nil {
			return append(b, "null"...), nil
		}
		return appendStringMap(b, v), nil
	case []any:
		if v == nil {
			return append(b, "null"...), nil
		}
		b = append(b, '[')
		for i := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendAny(b, v[i]); err != nil {
				return b, err
			}
		}
		return append(b, ']'), nil
	case []string:
		if v == nil {
			return append(b, "null"...), nil
		}
		b = append(b, '[')
		for i := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, v[i])
		}
		return append(b, ']'), nil
	default:
		js, err := json.Marshal(v)
		if err != nil {
			return b, err
		}
		return append(b, js...), nil
	}
}

const hexDigits = "0123456789abcdef"

// asItIs has the bytes that stand for themselves in a JSON string.
var asItIs = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf
	}
	return t
}()

// appendString appends s as a JSON string. Bytes that are no UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if asItIs[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			i++
			start = i
			continue
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
