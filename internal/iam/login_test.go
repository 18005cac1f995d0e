package iam

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/sealdesk/sealdesk/internal/store"
)

func TestPasswords(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	ctx := context.Background()
	e.user("bob")
	refused[iam.GetAccountPasswordPolicyOutput](e, c, &iam.GetAccountPasswordPolicyInput{}, "NoSuchEntity", "The Password Policy with domain name 111122223333 cannot be found.")
	create := func(pw string) *iam.CreateLoginProfileInput {
		return &iam.CreateLoginProfileInput{UserName: aws.String("bob"), Password: &pw}
	}
	refused[iam.CreateLoginProfileOutput](e, c, create("short"), "PasswordPolicyViolation", "minimum length of 8")
	refused[iam.CreateLoginProfileOutput](e, c, create("alllowercase"), "PasswordPolicyViolation", "three of")
	do[iam.CreateLoginProfileOutput](e, c, create("First-Pass-1"))
	refused[iam.CreateLoginProfileOutput](e, c, create("First-Pass-1"), "EntityAlreadyExists", "Login Profile for user bob already exists.")
	if _, err := e.s.SignIn(ctx, acct, "BOB", "First-Pass-1", ""); err != nil {
		t.Errorf("SignIn: %v", err)
	}
	for _, tt := range [][3]string{{acct, "bob", "wrong"}, {acct, "nobody", "First-Pass-1"}, {otherAcct, "bob", "First-Pass-1"}} {
		if _, err := e.s.SignIn(ctx, tt[0], tt[1], tt[2], ""); !errors.Is(err, ErrSignIn) {
			t.Errorf("SignIn(%v) = %v, want ErrSignIn", tt, err)
		}
	}
	do[iam.UpdateAccountPasswordPolicyOutput](e, c, &iam.UpdateAccountPasswordPolicyInput{MinimumPasswordLength: aws.Int32(10), RequireNumbers: true, AllowUsersToChangePassword: true, PasswordReusePrevention: aws.Int32(2), MaxPasswordAge: aws.Int32(30), HardExpiry: aws.Bool(true)})
	p := e.as("bob").Principal
	if d := e.decide(&p, "iam:ChangePassword", "*"); !d.Allowed() {
		t.Error("AllowUsersToChangePassword does not let users change their password")
	}
	change := func(old, new string) *iam.ChangePasswordInput {
		return &iam.ChangePasswordInput{OldPassword: &old, NewPassword: &new}
	}
	refused[iam.ChangePasswordOutput](e, c, change("a", "b"), "InvalidUserType", "")
	refused[iam.ChangePasswordOutput](e, e.as("bob"), change("wrong", "Second-Pass-2"), "AccessDenied", "The old password was incorrect.")
	refused[iam.ChangePasswordOutput](e, e.as("bob"), change("First-Pass-1", "no-numbers-in-it"), "PasswordPolicyViolation", "number")
	refused[iam.ChangePasswordOutput](e, e.as("bob"), change("First-Pass-1", "First-Pass-1"), "PasswordPolicyViolation", "previously")
	do[iam.ChangePasswordOutput](e, e.as("bob"), change("First-Pass-1", "Second-Pass-2"))
	refused[iam.UpdateLoginProfileOutput](e, c, &iam.UpdateLoginProfileInput{UserName: aws.String("bob"), Password: aws.String("First-Pass-1")}, "PasswordPolicyViolation", "previously")
	if _, err := e.s.SignIn(ctx, acct, "bob", "First-Pass-1", ""); !errors.Is(err, ErrSignIn) {
		t.Errorf("the old password still signs in: %v", err)
	}
	e.clock.Advance(31 * 24 * time.Hour)
	if _, err := e.s.SignIn(ctx, acct, "bob", "Second-Pass-2", ""); !errors.Is(err, ErrPasswordExpired) {
		t.Errorf("SignIn with an expired password = %v, want ErrPasswordExpired", err)
	}
}

// TestCodes checks the codes against RFC 6238, appendix B (the last six digits).
func TestCodes(t *testing.T) {
	seed := []byte("12345678901234567890")
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got := code(seed, at/30); got != want {
			t.Errorf("code at %d = %s, want %s", at, got, want)
		}
	}
}

func TestMFA(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	d := do[iam.CreateVirtualMFADeviceOutput](e, c, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: aws.String("phone")}).VirtualMFADevice
	if len(d.QRCodePNG) < 100 || string(d.QRCodePNG[1:4]) != "PNG" {
		t.Error("QRCodePNG is no PNG")
	}
	rec, _ := e.s.device(e.st.Snapshot(), acct, *d.SerialNumber)
	seed, err := e.s.seed(rec)
	if err != nil {
		t.Fatal(err)
	}
	at := func(offset int64) *string {
		return aws.String(code(seed.Expose(), e.clock.Now().Unix()/30+offset))
	}
	enable := &iam.EnableMFADeviceInput{UserName: aws.String("bob"), SerialNumber: d.SerialNumber, AuthenticationCode1: at(0), AuthenticationCode2: at(0)}
	refused[iam.EnableMFADeviceOutput](e, c, enable, "InvalidAuthenticationCode", "Authentication code for device is not valid.")
	enable.AuthenticationCode1, enable.AuthenticationCode2 = at(-1), at(0)
	do[iam.EnableMFADeviceOutput](e, c, enable)
	refused[iam.EnableMFADeviceOutput](e, c, enable, "EntityAlreadyExists", "already in use")
	refused[iam.DeleteVirtualMFADeviceOutput](e, c, &iam.DeleteVirtualMFADeviceInput{SerialNumber: d.SerialNumber}, "DeleteConflict", "MFA VirtualDevice in use. Must deactivate first.")
	p := e.as("bob").Principal
	try := func(code *string) bool {
		t.Helper()
		tx := e.st
		ok := false
		if err := tx.Update(context.Background(), func(tx *store.Tx) error {
			var err error
			ok, err = e.s.CheckMFA(tx, &p, *d.SerialNumber, *code)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if try(at(0)) {
		t.Error("the code used to enable the device is accepted again")
	}
	e.clock.Advance(30 * time.Second)
	if !try(at(0)) || try(at(0)) {
		t.Error("a fresh code must be accepted once")
	}
	root := e.root().Principal
	if ok, _ := e.s.CheckMFA(e.st.Snapshot(), &root, *d.SerialNumber, *at(1)); ok {
		t.Error("root may use bob's device")
	}
	refused[iam.DeleteUserOutput](e, c, &iam.DeleteUserInput{UserName: aws.String("bob")}, "DeleteConflict", "must delete MFA device first")
	list := do[iam.ListMFADevicesOutput](e, e.as("bob"), &iam.ListMFADevicesInput{}).MFADevices
	if len(list) != 1 || *list[0].UserName != "bob" {
		t.Errorf("ListMFADevices = %+v", list)
	}
	do[iam.CreateLoginProfileOutput](e, c, &iam.CreateLoginProfileInput{UserName: aws.String("bob"), Password: aws.String("First-Pass-1")})
	if _, err := e.s.SignIn(context.Background(), acct, "bob", "First-Pass-1", ""); !errors.Is(err, ErrSignIn) {
		t.Errorf("SignIn without a code = %v, want ErrSignIn", err)
	}
	e.clock.Advance(30 * time.Second)
	in, err := e.s.SignIn(context.Background(), acct, "bob", "First-Pass-1", *at(0))
	if err != nil || !in.Principal.MFA {
		t.Errorf("SignIn with a code = %+v, %v", in, err)
	}
	do[iam.DeactivateMFADeviceOutput](e, c, &iam.DeactivateMFADeviceInput{UserName: aws.String("bob"), SerialNumber: d.SerialNumber})
	do[iam.DeleteVirtualMFADeviceOutput](e, c, &iam.DeleteVirtualMFADeviceInput{SerialNumber: d.SerialNumber})
}
