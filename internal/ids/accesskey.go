package ids

import (
	"encoding/base32"
	"encoding/binary"
	"strconv"
	"strings"
)

// AccessKey returns an access key ID of 20 characters: prefix (AKIA, ASIA) and 80
// bits in base32, of which the second to the forty-first are the account ID, the
// first is 1 and the others are random. The layout is the one by which AWS's own
// IDs tell their account (sts:GetAccessKeyInfo) without a look-up.
func AccessKey(prefix, account string) string {
	b := random(10)
	n, err := strconv.ParseUint(account, 10, 40)
	if err != nil {
		panic("ids: account " + account + " is not 12 digits")
	}
	var head [8]byte
	copy(head[2:], b[:6])
	v := binary.BigEndian.Uint64(head[:])&0x7f | n<<7 | 1<<47
	binary.BigEndian.PutUint64(head[:], v)
	copy(b, head[2:])
	return prefix + base32.StdEncoding.EncodeToString(b)
}

// AccountOfAccessKey reads the account out of an ID that AccessKey made. It is
// false for an ID of another form; it does not say that the key or account exists.
func AccountOfAccessKey(id string) (account string, ok bool) {
	if len(id) != 20 || !strings.HasPrefix(id, "A") {
		return "", false
	}
	b, err := base32.StdEncoding.DecodeString(id[4:])
	if err != nil || b[0]&0x80 == 0 {
		return "", false
	}
	var head [8]byte
	copy(head[2:], b[:6])
	n := binary.BigEndian.Uint64(head[:]) >> 7 & (1<<40 - 1)
	account = strconv.FormatUint(n, 10)
	if len(account) > 12 {
		return "", false
	}
	return strings.Repeat("0", 12-len(account)) + account, true
}
