package gateway

import (
	"bytes"
	"io"
	"net/http"

	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/wire"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
)

// Refuse answers every call, in the protocol it came in, with the error that err
// gives for its service. For a server that cannot tell yet who calls.
func Refuse(err func(service string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth, _ := sigv4.Parse(r)
		var body []byte
		if auth == nil { // only then the body tells the service
			body, _ = io.ReadAll(io.LimitReader(r.Body, 64<<10))
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		svc := service(auth, r, body)
		if svc == nil {
			svc = wire.Services()[0]
		}
		w.Header().Set("Retry-After", "5")
		_ = svc.EncodeError(w, ids.UUID(), err(svc.Name))
	})
}
