package front

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// response gathers a reply (http.ResponseWriter).
type response struct {
	header http.Header
	status int // 0: not yet known
	head   []byte
	body   []byte

	declared                 int64 // the handler's own Content-Length, -1 for none
	hasType, hasDate, closes bool

	second int64 // of date
	date   []byte
}

func (w *response) reset() {
	if w.header == nil {
		w.header = make(http.Header, 8)
	}
	clear(w.header)
	w.status, w.declared, w.hasType, w.hasDate, w.closes = 0, -1, false, false, false
	w.head, w.body = w.head[:0], w.body[:0]
}

// wipe forgets what the reply said, since it may be key material, and lets go of
// large buffers.
func (w *response) wipe() {
	w.head, w.body = wiped(w.head), wiped(w.body)
}

func wiped(b []byte) []byte {
	clear(b)
	if cap(b) > 64<<10 {
		return nil
	}
	return b[:0]
}

func (w *response) Header() http.Header { return w.header }

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.declared >= 0 && int64(len(w.body)+len(b)) > w.declared {
		return 0, http.ErrContentLength
	}
	w.body = grow(w.body, len(b))
	w.body = append(w.body, b...)
	return len(b), nil
}

// grow makes room for n bytes more, and leaves nothing behind where b was.
func grow(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b
	}
	larger := append(make([]byte, 0, max(2*cap(b), len(b)+n, 1024)), b...)
	clear(b)
	return larger
}

// WriteHeader writes down the status and the headers as they are now.
func (w *response) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %d", status))
	}
	if w.status != 0 || status < 200 {
		return
	}
	w.status = status
	b := append(w.head[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = strconv.AppendInt(append(b, "status code "...), int64(status), 10)
	}
	b = append(b, "\r\n"...)
	for key, values := range w.header {
		switch key {
		case "Content-Length":
			if len(values) == 1 && bodyAllowed(status) {
				if n, err := strconv.ParseUint(values[0], 10, 63); err == nil {
					w.declared = int64(n)
				}
			}
			continue
		case "Transfer-Encoding", "Trailer":
			continue
		case "Connection":
			if len(values) > 0 && values[0] == "close" {
				w.closes = true
			}
			continue
		case "Content-Type", "Content-Encoding":
			w.hasType = true
		case "Date":
			w.hasDate = true
		}
		if !validName(key) {
			continue
		}
		for _, v := range values {
			b = append(append(b, key...), ": "...)
			at := len(b)
			b = append(b, v...)
			for i := at; i < len(b); i++ {
				if b[i] == '\r' || b[i] == '\n' {
					b[i] = ' '
				}
			}
			b = append(b, "\r\n"...)
		}
	}
	w.head = b
}

// finish completes the reply, body included, in w.head. It returns false when the
// handler said less than it announced.
func (w *response) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.declared >= 0 && w.declared != int64(len(w.body)) {
		return false
	}
	b := w.head
	if bodyAllowed(w.status) {
		if !w.hasType && len(w.body) > 0 {
			b = append(append(append(b, "Content-Type: "...), http.DetectContentType(w.body)...), "\r\n"...)
		}
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(w.body)), 10), "\r\n"...)
	}
	if !w.hasDate {
		if now := time.Now(); now.Unix() != w.second {
			w.second = now.Unix()
			w.date = append(now.UTC().AppendFormat(append(w.date[:0], "Date: "...), http.TimeFormat), "\r\n"...)
		}
		b = append(b, w.date...)
	}
	if w.closes {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "\r\n"...)
	b = grow(b, len(w.body))
	w.head = append(b, w.body...)
	return true
}

// bodyAllowed: RFC 9110, section 6.4.1.
func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

func validName(s string) bool {
	for i := range len(s) {
		if !nameByte[s[i]] {
			return false
		}
	}
	return s != ""
}
