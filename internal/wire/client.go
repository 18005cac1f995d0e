package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/smithy-go"
)

// NewRequest makes the unsigned request of a REST-JSON operation from its
// input: the client's side of Decode, for services whose SDK module is not a
// dependency. Host and scheme are the endpoint's.
func (o *OperationModel) NewRequest(endpoint string, in any) (*http.Request, []byte, error) {
	if o.Service.Protocol != RESTJSON {
		return nil, nil, fmt.Errorf("wire: requests in %v are not encoded here", o.Service.Protocol)
	}
	t, p, err := structAddr(in)
	if err != nil {
		return nil, nil, err
	}
	sp, err := o.inputPlan(t)
	if err != nil {
		return nil, nil, err
	}
	if sp.payload >= 0 {
		return nil, nil, fmt.Errorf("wire: the payload of %s is not encoded here", o.Name)
	}
	path, query, header := o.URI, url.Values{}, http.Header{}
	for i := range sp.fields {
		f := &sp.fields[i]
		q, ok := f.v.load(f.at(p))
		if f.loc == 0 || !ok {
			if f.loc == 'u' || f.required && !ok {
				return nil, nil, fmt.Errorf("%s: member %s is required", o.Name, f.goName)
			}
			continue
		}
		text, err := f.v.text(q)
		if err != nil {
			return nil, nil, fmt.Errorf("member %s: %w", f.goName, err)
		}
		switch f.loc {
		case 'u':
			path = strings.ReplaceAll(path, "{"+f.locName+"}", url.PathEscape(text))
		case 'q':
			query.Set(f.locName, text)
		case 'h':
			header.Set(f.locName, text)
		}
	}
	body := appendJSON(nil, sp, p)
	r, err := http.NewRequest(o.Method, strings.TrimSuffix(endpoint, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("make the request of %s: %w", o.Name, err)
	}
	r.URL.RawQuery = query.Encode()
	header.Set("Content-Type", "application/json")
	r.Header = header
	return r, body, nil
}

// maxReply bounds what a client reads of a reply.
const maxReply = 16 << 20

// ReadReply reads a JSON reply into out, or returns the error that it carries as a
// smithy.GenericAPIError.
func (o *OperationModel) ReadReply(resp *http.Response, out any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return fmt.Errorf("read the reply of %s: %w", o.Name, err)
	}
	if resp.StatusCode/100 != 2 {
		var e struct {
			Type    string `json:"__type"`
			Code    string `json:"code"`
			Message string `json:"message"` // matches "Message" as well
		}
		_ = json.Unmarshal(body, &e) // what cannot be read stays empty
		code := resp.Header.Get("X-Amzn-Errortype")
		for _, c := range []string{e.Type, e.Code, fmt.Sprintf("HTTP%d", resp.StatusCode)} {
			if code == "" {
				code = c
			}
		}
		code, _, _ = strings.Cut(code, ":")
		if _, after, ok := strings.Cut(code, "#"); ok {
			code = after
		}
		return &smithy.GenericAPIError{Code: code, Message: e.Message}
	}
	t, p, err := structAddr(out)
	if err != nil {
		return err
	}
	sp, err := o.outputPlan(t)
	if err != nil {
		return err
	}
	if err := decodeJSON(body, sp, p, nil); err != nil {
		return fmt.Errorf("read the reply of %s: %w", o.Name, err)
	}
	return nil
}
