package iam

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/crypto/argon2"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) loginOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateLoginProfile", s.createLoginProfile, onUser(s, func(in *iam.CreateLoginProfileInput) *string { return in.UserName }), api.Sensitive("Password")),
		api.NewView("iam", "GetLoginProfile", s.getLoginProfile, onUser(s, func(in *iam.GetLoginProfileInput) *string { return in.UserName })),
		api.NewUpdate("iam", "UpdateLoginProfile", s.updateLoginProfile, onUser(s, func(in *iam.UpdateLoginProfileInput) *string { return in.UserName }), api.Sensitive("Password")),
		api.NewUpdate("iam", "DeleteLoginProfile", s.deleteLoginProfile, onUser(s, func(in *iam.DeleteLoginProfileInput) *string { return in.UserName })),
		api.NewUpdate("iam", "ChangePassword", s.changePassword, onUser(s, func(*iam.ChangePasswordInput) *string { return nil }), api.Sensitive("OldPassword", "NewPassword")),
	}
}

// Passwords are kept as Argon2id hashes with the second recommended parameters
// of RFC 9106, section 4, in the usual text form:
//
//	$argon2id$v=19$m=65536,t=3,p=4$<salt, 16 bytes>$<hash, 32 bytes>
const (
	argonTime    = 3
	argonKiB     = 64 * 1024
	argonThreads = 4
)

// hashPassword hashes; at most two run at a time, since each takes 64 MiB.
func (s *Service) hashPassword(password string) string {
	s.hashing <- struct{}{}
	defer func() { <-s.hashing }()
	salt := make([]byte, 16)
	_, _ = rand.Read(salt)
	h := argon2.IDKey([]byte(password), salt, argonTime, argonKiB, argonThreads, 32)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonKiB, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(h))
}

// passwordMatches compares in constant time. An unreadable hash matches nothing.
func (s *Service) passwordMatches(hash, password string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false
	}
	var v, m, t, p uint32
	if _, err := fmt.Sscanf(parts[2], "v=%d", &v); err != nil || v != argon2.Version {
		return false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &m, &t, &p); err != nil || p == 0 || p > 255 || t == 0 || m > 1<<21 {
		return false
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(want) == 0 {
		return false
	}
	s.hashing <- struct{}{}
	defer func() { <-s.hashing }()
	got := argon2.IDKey([]byte(password), salt, t, m, uint8(p), uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1
}

// defaultPasswords is the policy of an account that set none.
// Source: IAM User Guide, "Set an account password policy for IAM users".
var defaultPasswords = passwordPolicy{MinimumLength: 8}

func (s *Service) passwordPolicy(tx *store.Tx, account string) (p passwordPolicy, own bool) {
	if a := s.accounts.Get(tx, account); a != nil && a.PasswordPolicy != nil {
		return *a.PasswordPolicy, true
	}
	return defaultPasswords, false
}

// checkPassword holds a new password against the account's policy.
func (s *Service) checkPassword(tx *store.Tx, u *user, password string) error {
	p, own := s.passwordPolicy(tx, u.Account)
	violation := func(format string, args ...any) error {
		return &types.PasswordPolicyViolationException{Message: aws.String(fmt.Sprintf(format, args...))}
	}
	if len([]rune(password)) < int(p.MinimumLength) {
		return violation("Password should have a minimum length of %d", p.MinimumLength)
	}
	if len([]rune(password)) > 128 {
		return violation("Password should have a maximum length of 128")
	}
	var upper, lower, digit, symbol bool
	for _, r := range password {
		switch {
		case unicode.IsUpper(r):
			upper = true
		case unicode.IsLower(r):
			lower = true
		case unicode.IsDigit(r):
			digit = true
		case strings.ContainsRune("!@#$%^&*()_+-=[]{}|'", r):
			symbol = true
		}
	}
	switch {
	case p.Uppercase && !upper:
		return violation("Password should have at least one uppercase letter")
	case p.Lower && !lower:
		return violation("Password should have at least one lowercase letter")
	case p.Numbers && !digit:
		return violation("Password should have at least one number")
	case p.Symbols && !symbol:
		return violation("Password should have at least one of the following symbols: ! @ # $ %% ^ & * ( ) _ + - = [ ] { } | '")
	}
	if !own { // the default policy: three of the four kinds, and not the name
		kinds := 0
		for _, k := range []bool{upper, lower, digit, symbol} {
			if k {
				kinds++
			}
		}
		if kinds < 3 {
			return violation("Password should contain at least three of: uppercase letters, lowercase letters, numbers, symbols")
		}
		if strings.EqualFold(password, u.Name) {
			return violation("Password should not be identical to the user name")
		}
	}
	return nil
}

func (s *Service) checkReuse(tx *store.Tx, u *user, password string) error {
	p, _ := s.passwordPolicy(tx, u.Account)
	if u.Login == nil || p.ReusePrevention == 0 {
		return nil
	}
	old := append([]string{u.Login.Hash}, u.Login.History...)
	if len(old) > int(p.ReusePrevention) {
		old = old[:p.ReusePrevention]
	}
	for _, h := range old {
		if s.passwordMatches(h, password) {
			return &types.PasswordPolicyViolationException{Message: aws.String("Password has been used previously; choose one that was not among the last " + fmt.Sprint(p.ReusePrevention))}
		}
	}
	return nil
}

// maxHistory is the most old passwords a policy may forbid.
const maxHistory = 24

// setPassword gives a login profile a new password.
func (s *Service) setPassword(u *user, password string, now time.Time) {
	l := u.Login
	if l.Hash != "" {
		l.History = append([]string{l.Hash}, l.History...)
		if len(l.History) > maxHistory {
			l.History = l.History[:maxHistory]
		}
	}
	l.Hash, l.Changed = s.hashPassword(password), now
}

func showLogin(u *user) *types.LoginProfile {
	return &types.LoginProfile{UserName: aws.String(u.Name), CreateDate: aws.Time(u.Login.Created), PasswordResetRequired: u.Login.ResetRequired}
}

func noLogin(name string) error {
	return noSuchEntity("Login Profile for User %s cannot be found.", name)
}

func (s *Service) createLoginProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateLoginProfileInput) (*iam.CreateLoginProfileOutput, error) {
	name, root, err := self(c, in.UserName)
	if err != nil {
		return nil, err
	}
	if root {
		return nil, errRootPassword
	}
	u, err := s.editUser(tx, c.Account, name)
	if err != nil {
		return nil, err
	}
	if u.Login != nil {
		return nil, entityExists("Login Profile for user %s already exists.", u.Name)
	}
	if in.Password == nil {
		return nil, validation("Password is required: this call does not run with credentials of AssumeRoot.")
	}
	if err := s.checkPassword(tx, u, *in.Password); err != nil {
		return nil, err
	}
	u.Login = &login{Created: s.now(c), ResetRequired: in.PasswordResetRequired}
	s.setPassword(u, *in.Password, s.now(c))
	if err := s.putUser(tx, u); err != nil {
		return nil, err
	}
	return &iam.CreateLoginProfileOutput{LoginProfile: showLogin(u)}, nil
}

var errRootPassword = &types.InvalidUserTypeException{Message: aws.String("The root user has no login profile; it signs in with its access key.")}

func (s *Service) getLoginProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetLoginProfileInput) (*iam.GetLoginProfileOutput, error) {
	name, root, err := self(c, in.UserName)
	if err != nil {
		return nil, err
	}
	if root {
		return nil, noLogin("root")
	}
	u := s.users.Get(tx, key(c.Account, name))
	if u == nil {
		return nil, noUser(name)
	}
	if u.Login == nil {
		return nil, noLogin(u.Name)
	}
	return &iam.GetLoginProfileOutput{LoginProfile: showLogin(u)}, nil
}

func (s *Service) updateLoginProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateLoginProfileInput) (*iam.UpdateLoginProfileOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	if u.Login == nil {
		return nil, noLogin(u.Name)
	}
	if in.Password != nil {
		if err := s.checkPassword(tx, u, *in.Password); err != nil {
			return nil, err
		}
		if err := s.checkReuse(tx, u, *in.Password); err != nil {
			return nil, err
		}
		s.setPassword(u, *in.Password, s.now(c))
	}
	if in.PasswordResetRequired != nil {
		u.Login.ResetRequired = *in.PasswordResetRequired
	}
	return &iam.UpdateLoginProfileOutput{}, s.putUser(tx, u)
}

func (s *Service) deleteLoginProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteLoginProfileInput) (*iam.DeleteLoginProfileOutput, error) {
	name, root, err := self(c, in.UserName)
	if err != nil {
		return nil, err
	}
	if root {
		return nil, noLogin("root")
	}
	u, err := s.editUser(tx, c.Account, name)
	if err != nil {
		return nil, err
	}
	if u.Login == nil {
		return nil, noLogin(u.Name)
	}
	u.Login = nil
	return &iam.DeleteLoginProfileOutput{}, s.putUser(tx, u)
}

func (s *Service) changePassword(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ChangePasswordInput) (*iam.ChangePasswordOutput, error) {
	if c.Principal.Type != api.IAMUser {
		return nil, &types.InvalidUserTypeException{Message: aws.String("Only IAM users can change their own password.")}
	}
	u, err := s.editUser(tx, c.Account, c.Principal.UserName)
	if err != nil {
		return nil, err
	}
	if u.Login == nil {
		return nil, noLogin(u.Name)
	}
	if !s.passwordMatches(u.Login.Hash, aws.ToString(in.OldPassword)) {
		return nil, accessDenied("The old password was incorrect.")
	}
	if err := s.checkPassword(tx, u, aws.ToString(in.NewPassword)); err != nil {
		return nil, err
	}
	if err := s.checkReuse(tx, u, aws.ToString(in.NewPassword)); err != nil {
		return nil, err
	}
	s.setPassword(u, aws.ToString(in.NewPassword), s.now(c))
	u.Login.ResetRequired = false
	return &iam.ChangePasswordOutput{}, s.putUser(tx, u)
}

// Errors of SignIn. What was wrong is told only as far as it helps the right person.
var (
	ErrSignIn          = errors.New("the account, user name or password is not right, or the MFA code is missing or used")
	ErrPasswordExpired = errors.New("the password has expired; an administrator must set a new one")
)

// SignedIn is a successful sign-in with a password.
type SignedIn struct {
	Principal api.Principal
	// ResetRequired: the password must be changed before anything else.
	ResetRequired bool
}

// SignIn checks a user's password, and its MFA code when it has a device, for the
// console. account is the ID or the alias. Whether the user exists takes as long
// to find out as whether the password is right.
func (s *Service) SignIn(ctx context.Context, account, userName, password, mfaCode string) (*SignedIn, error) {
	tx := s.store.Snapshot()
	if a := s.aliases.Get(tx, account); a != nil {
		account = a.Account
	}
	u := s.users.Get(tx, key(account, userName))
	hash := decoyHash
	if u != nil && u.Login != nil {
		hash = u.Login.Hash
	}
	if !s.passwordMatches(hash, password) || u == nil || u.Login == nil {
		return nil, ErrSignIn
	}
	p, _ := s.passwordPolicy(tx, account)
	expired := p.MaxAgeDays > 0 && s.clock.Now().Sub(u.Login.Changed) > time.Duration(p.MaxAgeDays)*24*time.Hour
	if expired && p.HardExpiry {
		return nil, ErrPasswordExpired
	}
	out := &SignedIn{ResetRequired: u.Login.ResetRequired || expired}
	id := u.ID
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		u := s.users.Edit(tx, key(account, userName))
		if u == nil || u.ID != id || u.Login == nil || u.Login.Hash != hash {
			return ErrSignIn
		}
		mfa := false
		if len(u.MFA) > 0 {
			if mfaCode == "" {
				return ErrSignIn
			}
			for _, serial := range u.MFA {
				if err := s.useCode(tx, account, serial, mfaCode); err == nil {
					mfa = true
					break
				}
			}
			if !mfa {
				return ErrSignIn
			}
		}
		u.SignedIn = s.now(nil)
		out.Principal = api.Principal{Type: api.IAMUser, Account: account, ARN: u.arn(), ID: u.ID, UserName: u.Name, Tags: tagMap(u.Tags), MFA: mfa, FromConsole: true}
		return s.putUser(tx, u)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// decoyHash is of a password nobody knows: it is compared when there is no user.
var decoyHash = "$argon2id$v=19$m=65536,t=3,p=4$" + base64.RawStdEncoding.EncodeToString([]byte("sealdesk no user")) + "$" + base64.RawStdEncoding.EncodeToString(make([]byte, 32))

// The account's password policy.

func (s *Service) updateAccountPasswordPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateAccountPasswordPolicyInput) (*iam.UpdateAccountPasswordPolicyOutput, error) {
	p := &passwordPolicy{MinimumLength: 6, Symbols: in.RequireSymbols, Numbers: in.RequireNumbers, Uppercase: in.RequireUppercaseCharacters, Lower: in.RequireLowercaseCharacters,
		AllowUsersToChange: in.AllowUsersToChangePassword, MaxAgeDays: aws.ToInt32(in.MaxPasswordAge), ReusePrevention: aws.ToInt32(in.PasswordReusePrevention), HardExpiry: aws.ToBool(in.HardExpiry)}
	if in.MinimumPasswordLength != nil {
		p.MinimumLength = *in.MinimumPasswordLength
	}
	for _, r := range []struct {
		name     string
		v        int32
		min, max int32
	}{{"minimumPasswordLength", p.MinimumLength, 6, 128}, {"maxPasswordAge", p.MaxAgeDays, 0, 1095}, {"passwordReusePrevention", p.ReusePrevention, 0, maxHistory}} {
		if r.v < r.min || r.v > r.max {
			return nil, validation("1 validation error detected: Value '%d' at '%s' failed to satisfy constraint: Member must be between %d and %d", r.v, r.name, r.min, r.max)
		}
	}
	a := s.editAccount(tx, c)
	a.PasswordPolicy = p
	return &iam.UpdateAccountPasswordPolicyOutput{}, s.accounts.Put(tx, c.Account, a)
}

func noPasswordPolicy(account string) error {
	return noSuchEntity("The Password Policy with domain name %s cannot be found.", account)
}

func (s *Service) getAccountPasswordPolicy(_ context.Context, tx *store.Tx, c *api.Call, _ *iam.GetAccountPasswordPolicyInput) (*iam.GetAccountPasswordPolicyOutput, error) {
	p, own := s.passwordPolicy(tx, c.Account)
	if !own {
		return nil, noPasswordPolicy(c.Account)
	}
	out := &types.PasswordPolicy{MinimumPasswordLength: aws.Int32(p.MinimumLength), RequireSymbols: p.Symbols, RequireNumbers: p.Numbers, RequireUppercaseCharacters: p.Uppercase,
		RequireLowercaseCharacters: p.Lower, AllowUsersToChangePassword: p.AllowUsersToChange, ExpirePasswords: p.MaxAgeDays > 0}
	if p.MaxAgeDays > 0 {
		out.MaxPasswordAge, out.HardExpiry = aws.Int32(p.MaxAgeDays), aws.Bool(p.HardExpiry)
	}
	if p.ReusePrevention > 0 {
		out.PasswordReusePrevention = aws.Int32(p.ReusePrevention)
	}
	return &iam.GetAccountPasswordPolicyOutput{PasswordPolicy: out}, nil
}

func (s *Service) deleteAccountPasswordPolicy(_ context.Context, tx *store.Tx, c *api.Call, _ *iam.DeleteAccountPasswordPolicyInput) (*iam.DeleteAccountPasswordPolicyOutput, error) {
	a := s.editAccount(tx, c)
	if a.PasswordPolicy == nil {
		return nil, noSuchEntity("The account policy with name PasswordPolicy cannot be found.")
	}
	a.PasswordPolicy = nil
	return &iam.DeleteAccountPasswordPolicyOutput{}, s.accounts.Put(tx, c.Account, a)
}
