package workspaces

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sealdesk/sealdesk/internal/store"
)

// Errors of the checks that guard a user's way to a desktop.
var (
	// ErrNotRegistered: the directory is not registered with WorkSpaces.
	ErrNotRegistered = errors.New("the directory is not registered with WorkSpaces")
	// ErrAddressDenied: none of the directory's IP access control groups has the address.
	ErrAddressDenied = errors.New("your network address is not in an IP access control group of the directory")
	// ErrWebDenied: the directory allows no web access.
	ErrWebDenied = errors.New("the directory does not allow web access (DeviceTypeWeb is DENY)")
	// ErrNotShown: the desktop is not there, not this user's, or not AVAILABLE.
	ErrNotShown = errors.New("the desktop cannot be shown")
)

// ByRegistrationCode finds the registered directory that a code, or the connection
// string of an alias in its place, belongs to.
func (s *Service) ByRegistrationCode(tx *store.Tx, code string) (account, region, directoryID string, ok bool) {
	s.directories.Scan(tx, "", "", func(_ string, r *registration) bool {
		if subtle.ConstantTimeCompare([]byte(r.RegistrationCode), []byte(code)) == 1 {
			account, region, directoryID, ok = r.Account, r.Region, r.ID, true
		}
		return !ok
	})
	if !ok {
		return s.byAlias(tx, code)
	}
	return account, region, directoryID, ok
}

// WebAccess tells whether users of a directory may come from an address with a
// browser. Source: WorkSpaces administration guide, "IP access control groups"
// and "Restrict access to trusted devices": without a group every address may.
func (s *Service) WebAccess(tx *store.Tx, account, region, directoryID string, from netip.Addr) error {
	r := s.directories.Get(tx, key(account, region, directoryID))
	if r == nil {
		return ErrNotRegistered
	}
	if r.Access["DeviceTypeWeb"] == "DENY" {
		return ErrWebDenied
	}
	if len(r.IPGroups) == 0 {
		return nil
	}
	from = from.Unmap()
	for _, id := range r.IPGroups {
		g := s.ipGroups.Get(tx, key(account, region, id))
		if g == nil {
			continue
		}
		for _, rule := range g.Rules {
			if p, err := netip.ParsePrefix(rule.CIDR); err == nil && p.Contains(from) {
				return nil
			}
		}
	}
	return ErrAddressDenied
}

// SelfServiceAllowed tells whether the directory lets its users do something
// themselves: "RestartWorkspace", "RebuildWorkspace", ….
func (s *Service) SelfServiceAllowed(tx *store.Tx, account, region, directoryID, permission string) bool {
	r := s.directories.Get(tx, key(account, region, directoryID))
	return r != nil && r.SelfService[permission] == "ENABLED"
}

// Shows tells whether a desktop may be on its user's screen now: nil while it is
// AVAILABLE and belongs to the user with the SID.
func (s *Service) Shows(tx *store.Tx, account, region, id, sid string) error {
	w := s.workspaces.Get(tx, key(account, region, id))
	if w == nil || w.SID != sid {
		return fmt.Errorf("%w: it does not exist", ErrNotShown)
	}
	if w.State != available {
		return fmt.Errorf("%w: the WorkSpace is %s", ErrNotShown, w.State)
	}
	return nil
}
