package xks

import (
	"bytes"
	"testing"
)

// FuzzReply: no reply of a proxy makes the client panic, and what it believes is of the form.
func FuzzReply(f *testing.F) {
	f.Add(200, []byte(`{"ciphertext":"eA==","initializationVector":"HMrlRw85cAJUd5Ax","authenticationTag":"vBxN2ncH1oEkR8WVXpmyYQ==","ciphertextDataIntegrityValue":"qHA/"}`))
	f.Add(200, []byte(`{"xksProxyFleetSize":1,"xksProxyVendor":"a","xksProxyModel":"b","ekmVendor":"c","ekmFleetDetails":[{"id":"1","model":"m","healthStatus":"ACTIVE"}]}`))
	f.Add(400, []byte(`{"errorName":"ValidationException","errorMessage":"\u0000\n"}`))
	f.Add(500, []byte(`null`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var s Sealed
		if err := parseReply(status, body, &s); err != nil {
			e, ok := err.(*Error)
			if !ok || e.Kind != Malformed && Status[e.Kind] == 0 {
				t.Errorf("parseReply(%d, %q) = %v, want a known *Error", status, body, err)
			}
			for _, c := range []byte(e.Detail) {
				if c < 0x20 || c > 0x7e {
					t.Errorf("detail %q is not printable", e.Detail)
				}
			}
			return
		}
		if s.check(len(s.Ciphertext), nil) == nil {
			b, err := s.MarshalBinary()
			if err != nil {
				t.Fatalf("a reply that was believed has no binary form: %v", err)
			}
			var back Sealed
			if err := back.UnmarshalBinary(b); len(s.Ciphertext) > 0 && (err != nil || !bytes.Equal(back.Ciphertext, s.Ciphertext)) {
				t.Errorf("binary form does not come back: %v", err)
			}
		}
		var h Health
		if parseReply(status, body, &h) == nil && h.check() == nil && len(h.EKMs) == 0 {
			t.Error("a health status without key managers was believed")
		}
	})
}

// FuzzSealed: no ciphertext makes the parser panic, and there is one form only.
func FuzzSealed(f *testing.F) {
	s := Sealed{IV: make([]byte, 12), Tag: make([]byte, 16), Ciphertext: []byte("x"), CiphertextMetadata: []byte("m")}
	b, _ := s.MarshalBinary()
	f.Add(b)
	f.Add([]byte{12})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Sealed
		if s.UnmarshalBinary(b) != nil {
			return
		}
		again, err := s.MarshalBinary()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x reads as %+v and writes as %x, %v", b, s, again, err)
		}
	})
}
