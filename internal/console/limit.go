package console

import (
	"sync"
	"time"

	"github.com/sealdesk/sealdesk/internal/clock"
)

// How many wrong guesses are heard within window. One address cannot lock a user
// out for others: the tight bound is for an address and a user together.
const (
	window         = 5 * time.Minute
	guessesOfPair  = 6   // one address, one user
	guessesOfAddr  = 40  // one address, any user
	guessesOfUser  = 200 // one user, any address
	maxRemembered  = 50_000
	addrOnly       = "addr\x00"
	userOnly       = "user\x00"
	pairOfAddrUser = "pair\x00"
)

// limiter counts wrong guesses in memory.
type limiter struct {
	clock clock.Clock
	mu    sync.Mutex
	wrong map[string]*count
}

type count struct {
	n     int
	until time.Time
}

func newLimiter(c clock.Clock) *limiter { return &limiter{clock: c, wrong: map[string]*count{}} }

func keysOf(addr, user string) map[string]int {
	return map[string]int{pairOfAddrUser + addr + "\x00" + user: guessesOfPair, addrOnly + addr: guessesOfAddr, userOnly + user: guessesOfUser}
}

// allowed tells whether one more guess is heard.
func (l *limiter) allowed(addr, user string) bool {
	now := l.clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, most := range keysOf(addr, user) {
		if c := l.wrong[k]; c != nil && now.Before(c.until) && c.n >= most {
			return false
		}
	}
	return true
}

// failed counts a wrong guess.
func (l *limiter) failed(addr, user string) {
	now := l.clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) > maxRemembered {
		for k, c := range l.wrong {
			if !now.Before(c.until) {
				delete(l.wrong, k)
			}
		}
		if len(l.wrong) > maxRemembered {
			clear(l.wrong)
		}
	}
	for k := range keysOf(addr, user) {
		c := l.wrong[k]
		if c == nil || !now.Before(c.until) {
			c = &count{until: now.Add(window)}
			l.wrong[k] = c
		}
		c.n++
	}
}

// succeeded forgets the wrong guesses of a pair.
func (l *limiter) succeeded(addr, user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.wrong, pairOfAddrUser+addr+"\x00"+user)
}
