package compute

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// SeedFile is what the guest of a valid spec is told, in the form of the package doc. It is secret because it holds the
// password hash; the caller wipes it.
func SeedFile(s Spec) *secret.Bytes {
	hash := []byte{}
	if s.Seed.PasswordHash.Len() > 0 {
		hash = s.Seed.PasswordHash.Expose()
	}
	var b bytes.Buffer
	b.Grow(4096) // no growth, so that no copy of the hash stays behind in a smaller buffer
	text := func(k, v string) { fmt.Fprintf(&b, "  %q: \"%s\",\n", k, v) }
	b.WriteString("{\n")
	text("full_name", s.Seed.FullName)
	b.WriteString("  \"height\": " + strconv.Itoa(s.Display.Height) + ",\n")
	text("hostname", s.Seed.Hostname)
	text("keyboard_layout", s.Seed.KeyboardLayout)
	text("locale", s.Seed.Locale)
	text("machine", s.ID)
	b.WriteString("  \"password_hash\": \"")
	b.Write(hash)
	b.WriteString("\",\n")
	text("time_zone", s.Seed.TimeZone)
	text("user", s.Seed.UserName)
	b.WriteString("  \"version\": 1,\n")
	b.WriteString("  \"width\": " + strconv.Itoa(s.Display.Width) + "\n}\n")
	return secret.New(b.Bytes())
}
