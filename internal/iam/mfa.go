package iam

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 6238 as virtual MFA apps implement it
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"rsc.io/qr"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) mfaOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateVirtualMFADevice", s.createVirtualMFADevice, onNew("mfa", func(in *iam.CreateVirtualMFADeviceInput) (*string, *string) { return in.Path, in.VirtualMFADeviceName },
			withTags(func(in *iam.CreateVirtualMFADeviceInput) []types.Tag { return in.Tags })), api.Sensitive("Base32StringSeed", "QRCodePNG")),
		api.NewUpdate("iam", "DeleteVirtualMFADevice", s.deleteVirtualMFADevice, onMFA(s, func(in *iam.DeleteVirtualMFADeviceInput) *string { return in.SerialNumber })),
		api.NewView("iam", "ListVirtualMFADevices", s.listVirtualMFADevices),
		api.NewUpdate("iam", "EnableMFADevice", s.enableMFADevice, onUser(s, func(in *iam.EnableMFADeviceInput) *string { return in.UserName }), api.Sensitive("AuthenticationCode1", "AuthenticationCode2")),
		api.NewUpdate("iam", "DeactivateMFADevice", s.deactivateMFADevice, onUser(s, func(in *iam.DeactivateMFADeviceInput) *string { return in.UserName })),
		api.NewUpdate("iam", "ResyncMFADevice", s.resyncMFADevice, onUser(s, func(in *iam.ResyncMFADeviceInput) *string { return in.UserName }), api.Sensitive("AuthenticationCode1", "AuthenticationCode2")),
		api.NewView("iam", "ListMFADevices", s.listMFADevices, onUser(s, func(in *iam.ListMFADevicesInput) *string { return in.UserName })),
		api.NewView("iam", "GetMFADevice", s.getMFADevice, onUser(s, func(in *iam.GetMFADeviceInput) *string { return in.UserName })),
		api.NewUpdate("iam", "TagMFADevice", s.tagMFADevice, onMFA(s, func(in *iam.TagMFADeviceInput) *string { return in.SerialNumber }, withTags(func(in *iam.TagMFADeviceInput) []types.Tag { return in.Tags }))),
		api.NewUpdate("iam", "UntagMFADevice", s.untagMFADevice, onMFA(s, func(in *iam.UntagMFADeviceInput) *string { return in.SerialNumber }, withTagKeys(func(in *iam.UntagMFADeviceInput) []string { return in.TagKeys }))),
		api.NewView("iam", "ListMFADeviceTags", s.listMFADeviceTags, onMFA(s, func(in *iam.ListMFADeviceTagsInput) *string { return in.SerialNumber })),
	}
}

func onMFA[In any](s *Service, serial func(*In) *string, extra ...more[In]) api.Option {
	return one(func(tx *store.Tx, c *api.Call, in *In) (entity, error) {
		n := aws.ToString(serial(in))
		if d, _ := s.device(tx, c.Account, n); d != nil {
			return entity{arn: n, tags: d.Tags}, nil
		}
		if !strings.HasPrefix(n, "arn:") {
			n = iamARN(c.Account, "mfa", "/", n)
		}
		return entity{arn: n}, nil
	}, extra)
}

const (
	seedPurpose = "iam/mfa-seed"
	codeStep    = 30 * time.Second
	// codeSkew is how many steps a device's clock may be off either way.
	codeSkew = 1
	// resyncSkew is how far apart clocks may be when two codes in a row are given.
	resyncSkew = 20
)

// device finds a virtual device by its serial number, which is its ARN.
func (s *Service) device(tx *store.Tx, account, serial string) (*mfaDevice, string) {
	owner, kind, path, name, ok := splitARN(serial)
	if !ok || kind != "mfa" || owner != account {
		return nil, ""
	}
	k := key(account, name)
	if d := s.mfa.Get(tx, k); d != nil && d.Path == path && d.Name == name {
		return d, k
	}
	return nil, ""
}

func noDevice(serial *string) error {
	return noSuchEntity("MFA Device with serial number %s does not exist.", aws.ToString(serial))
}

var errCode = &types.InvalidAuthenticationCodeException{Message: aws.String("Authentication code for device is not valid.")}

// code is the code of one time step: RFC 6238 over RFC 4226, SHA-1, six digits.
func code(seed []byte, step int64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(step))
	m := hmac.New(sha1.New, seed)
	m.Write(b[:])
	sum := m.Sum(nil)
	o := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[o:])&0x7fffffff)%1_000_000)
}

func (s *Service) seed(d *mfaDevice) (*secret.Bytes, error) {
	seed, err := s.root.Unwrap(seedPurpose, d.Wrapped, []byte(d.serial()))
	if err != nil {
		return nil, fmt.Errorf("unwrap the seed of %s: %w", d.serial(), err)
	}
	return seed, nil
}

// matchStep finds the newest step within skew of now whose code (and the next
// one's, if given) matches and that is newer than the last used.
func (s *Service) matchStep(d *mfaDevice, now time.Time, skew int64, first, second string) (int64, error) {
	seed, err := s.seed(d)
	if err != nil {
		return 0, err
	}
	defer seed.Wipe()
	at := now.Unix() / int64(codeStep/time.Second)
	for step := at + skew; step >= at-skew; step-- {
		if step <= d.LastStep || !hmac.Equal([]byte(code(seed.Expose(), step)), []byte(first)) {
			continue
		}
		if second == "" {
			return step, nil
		}
		if hmac.Equal([]byte(code(seed.Expose(), step+1)), []byte(second)) {
			return step + 1, nil
		}
	}
	return 0, errCode
}

// errMFA is the refusal of a wrong, old or foreign code.
var errMFA = errors.New("the MFA device or code is not valid")

// useCode accepts a device's code once.
func (s *Service) useCode(tx *store.Tx, account, serial, code string) error {
	d, k := s.device(tx, account, serial)
	if d == nil || d.User == "" {
		return errMFA
	}
	step, err := s.matchStep(d, s.clock.Now(), codeSkew, code, "")
	if err != nil {
		if errors.Is(err, errCode) {
			return errMFA
		}
		return err
	}
	d = s.mfa.Edit(tx, k)
	d.LastStep = step
	return s.mfa.Put(tx, k, d)
}

// CheckMFA accepts one code of a device that belongs to p, for STS. It must run
// in the transaction of the call; no code is accepted twice.
func (s *Service) CheckMFA(tx *store.Tx, p *api.Principal, serial, code string) (ok bool, err error) {
	d, _ := s.device(tx, p.Account, serial)
	if d == nil || d.User == "" {
		return false, nil
	}
	switch p.Type {
	case api.Root:
		if d.User != rootUser {
			return false, nil
		}
	case api.IAMUser:
		u := s.userByID(tx, p.ID)
		if u == nil || d.User != strings.ToLower(u.Name) {
			return false, nil
		}
	default:
		return false, nil
	}
	err = s.useCode(tx, p.Account, serial, code)
	if errors.Is(err, errMFA) {
		return false, nil
	}
	return err == nil, err
}

func (s *Service) createVirtualMFADevice(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateVirtualMFADeviceInput) (*iam.CreateVirtualMFADeviceOutput, error) {
	name := aws.ToString(in.VirtualMFADeviceName)
	if s.mfa.Get(tx, key(c.Account, name)) != nil {
		return nil, entityExists("MFA device already exists.")
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	tags, err := newTags(in.Tags, exactCase)
	if err != nil {
		return nil, err
	}
	d := &mfaDevice{Account: c.Account, Name: name, Path: path, Tags: tags, Created: s.now(c)}
	seed := secret.Random(20) // RFC 4226, section 4: at least 128 bits, 160 recommended
	defer seed.Wipe()
	if d.Wrapped, err = s.root.Wrap(seedPurpose, seed, []byte(d.serial())); err != nil {
		return nil, fmt.Errorf("wrap the seed of %s: %w", d.serial(), err)
	}
	if err := s.mfa.Put(tx, key(c.Account, name), d); err != nil {
		return nil, err
	}
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(seed.Expose())
	label := url.PathEscape("Amazon Web Services:" + name + "@" + c.Account)
	png, err := qr.Encode("otpauth://totp/"+label+"?secret="+text+"&issuer="+url.QueryEscape("Amazon Web Services"), qr.M)
	if err != nil {
		return nil, fmt.Errorf("draw the QR code of %s: %w", d.serial(), err)
	}
	return &iam.CreateVirtualMFADeviceOutput{VirtualMFADevice: &types.VirtualMFADevice{SerialNumber: aws.String(d.serial()), Base32StringSeed: []byte(text), QRCodePNG: png.PNG(), Tags: showTags(tags)}}, nil
}

func (s *Service) deleteVirtualMFADevice(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteVirtualMFADeviceInput) (*iam.DeleteVirtualMFADeviceOutput, error) {
	d, k := s.device(tx, c.Account, aws.ToString(in.SerialNumber))
	if d == nil {
		return nil, noDevice(in.SerialNumber)
	}
	if d.User != "" {
		return nil, deleteConflict("MFA VirtualDevice in use. Must deactivate first.")
	}
	return &iam.DeleteVirtualMFADeviceOutput{}, s.mfa.Delete(tx, k)
}

// deviceUser is the user of an enabled device: nil with root true for the root user.
func (s *Service) deviceUser(tx *store.Tx, d *mfaDevice) (u *user, root bool) {
	switch d.User {
	case "":
		return nil, false
	case rootUser:
		return nil, true
	}
	return s.users.Get(tx, d.Account+"/"+d.User), false
}

func (s *Service) listVirtualMFADevices(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListVirtualMFADevicesInput) (*iam.ListVirtualMFADevicesOutput, error) {
	p, err := newPage("ListVirtualMFADevices", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	keep := func(d *mfaDevice) bool {
		switch in.AssignmentStatus {
		case types.AssignmentStatusTypeAssigned:
			return d.User != ""
		case types.AssignmentStatusTypeUnassigned:
			return d.User == ""
		}
		return true
	}
	list := scanPage(tx, s.mfa, c.Account+"/", p, keep, func(d *mfaDevice) types.VirtualMFADevice {
		out := types.VirtualMFADevice{SerialNumber: aws.String(d.serial())}
		if d.User == "" {
			return out
		}
		out.EnableDate = aws.Time(d.Enabled)
		u, root := s.deviceUser(tx, d)
		if root {
			out.User = &types.User{UserId: aws.String(d.Account), Arn: aws.String("arn:aws:iam::" + d.Account + ":root")}
		} else if u != nil {
			show := showUser(u)
			out.User = &show
		}
		return out
	})
	return &iam.ListVirtualMFADevicesOutput{VirtualMFADevices: list, IsTruncated: p.more, Marker: p.marker}, nil
}

// mfaHolder is the list of devices of a user, or of the root user for a root caller.
func (s *Service) mfaHolder(tx *store.Tx, c *api.Call, name *string) (who string, serials *[]string, put func(tx *store.Tx) error, err error) {
	if c.Principal.Type == api.Root && (name == nil || *name == "root" || *name == c.Account) {
		a := s.editAccount(tx, c)
		return rootUser, &a.MFA, func(tx *store.Tx) error { return s.accounts.Put(tx, a.ID, a) }, nil
	}
	n, _, err := self(c, name)
	if err != nil {
		return "", nil, nil, err
	}
	u, err := s.editUser(tx, c.Account, n)
	if err != nil {
		return "", nil, nil, err
	}
	return strings.ToLower(u.Name), &u.MFA, func(tx *store.Tx) error { return s.putUser(tx, u) }, nil
}

func (s *Service) enableMFADevice(_ context.Context, tx *store.Tx, c *api.Call, in *iam.EnableMFADeviceInput) (*iam.EnableMFADeviceOutput, error) {
	who, serials, put, err := s.mfaHolder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	d, k := s.device(tx, c.Account, aws.ToString(in.SerialNumber))
	if d == nil {
		return nil, noDevice(in.SerialNumber)
	}
	if d.User != "" {
		return nil, entityExists("MFA Device is already in use.")
	}
	if len(*serials) >= maxMFAPerUser {
		return nil, limitExceeded("Cannot exceed quota for MFADevicesPerUser: %d", maxMFAPerUser)
	}
	step, err := s.matchStep(d, s.clock.Now(), codeSkew+1, aws.ToString(in.AuthenticationCode1), aws.ToString(in.AuthenticationCode2))
	if err != nil {
		return nil, err
	}
	d = s.mfa.Edit(tx, k)
	d.User, d.Enabled, d.LastStep = who, s.now(c), step
	if err := s.mfa.Put(tx, k, d); err != nil {
		return nil, err
	}
	*serials = append(*serials, d.serial())
	return &iam.EnableMFADeviceOutput{}, put(tx)
}

func (s *Service) deactivateMFADevice(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeactivateMFADeviceInput) (*iam.DeactivateMFADeviceOutput, error) {
	who, serials, put, err := s.mfaHolder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	d, k := s.device(tx, c.Account, aws.ToString(in.SerialNumber))
	if d == nil {
		return nil, noDevice(in.SerialNumber)
	}
	if d.User != who {
		return nil, noSuchEntity("The MFA device with serial number %s is not enabled for the user.", aws.ToString(in.SerialNumber))
	}
	d = s.mfa.Edit(tx, k)
	d.User, d.Enabled = "", time.Time{}
	if err := s.mfa.Put(tx, k, d); err != nil {
		return nil, err
	}
	*serials = without(*serials, d.serial())
	return &iam.DeactivateMFADeviceOutput{}, put(tx)
}

func (s *Service) resyncMFADevice(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ResyncMFADeviceInput) (*iam.ResyncMFADeviceOutput, error) {
	who, _, _, err := s.mfaHolder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	d, k := s.device(tx, c.Account, aws.ToString(in.SerialNumber))
	if d == nil {
		return nil, noDevice(in.SerialNumber)
	}
	if d.User != who {
		return nil, noSuchEntity("The MFA device with serial number %s is not enabled for the user.", aws.ToString(in.SerialNumber))
	}
	step, err := s.matchStep(d, s.clock.Now(), resyncSkew, aws.ToString(in.AuthenticationCode1), aws.ToString(in.AuthenticationCode2))
	if err != nil {
		return nil, err
	}
	d = s.mfa.Edit(tx, k)
	d.LastStep = step
	return &iam.ResyncMFADeviceOutput{}, s.mfa.Put(tx, k, d)
}

func (s *Service) listMFADevices(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListMFADevicesInput) (*iam.ListMFADevicesOutput, error) {
	_, serials, _, err := s.mfaHolder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	p, err := newPage("ListMFADevices", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	name := c.Account
	if n, root, _ := self(c, in.UserName); !root {
		name = n
		if u := s.users.Get(tx, key(c.Account, n)); u != nil {
			name = u.Name
		}
	}
	list := []types.MFADevice{}
	for _, serial := range slicePage(slices.Sorted(slices.Values(*serials)), p, func(n string) string { return n }) {
		if d, _ := s.device(tx, c.Account, serial); d != nil {
			list = append(list, types.MFADevice{SerialNumber: aws.String(serial), EnableDate: aws.Time(d.Enabled), UserName: aws.String(name)})
		}
	}
	return &iam.ListMFADevicesOutput{MFADevices: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) getMFADevice(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetMFADeviceInput) (*iam.GetMFADeviceOutput, error) {
	d, _ := s.device(tx, c.Account, aws.ToString(in.SerialNumber))
	if d == nil {
		return nil, noDevice(in.SerialNumber)
	}
	out := &iam.GetMFADeviceOutput{SerialNumber: in.SerialNumber, Certifications: map[string]string{}}
	u, root := s.deviceUser(tx, d)
	if in.UserName != nil && (u == nil || !strings.EqualFold(u.Name, *in.UserName)) {
		return nil, noDevice(in.SerialNumber)
	}
	if u != nil {
		out.UserName = aws.String(u.Name)
	}
	if u != nil || root {
		out.EnableDate = aws.Time(d.Enabled)
	}
	return out, nil
}

func (s *Service) tagMFADevice(_ context.Context, tx *store.Tx, c *api.Call, in *iam.TagMFADeviceInput) (*iam.TagMFADeviceOutput, error) {
	_, k := s.device(tx, c.Account, aws.ToString(in.SerialNumber))
	d := s.mfa.Edit(tx, k)
	if k == "" || d == nil {
		return nil, noDevice(in.SerialNumber)
	}
	var err error
	if d.Tags, err = mergeTags(d.Tags, in.Tags, exactCase); err != nil {
		return nil, err
	}
	return &iam.TagMFADeviceOutput{}, s.mfa.Put(tx, k, d)
}

func (s *Service) untagMFADevice(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UntagMFADeviceInput) (*iam.UntagMFADeviceOutput, error) {
	_, k := s.device(tx, c.Account, aws.ToString(in.SerialNumber))
	d := s.mfa.Edit(tx, k)
	if k == "" || d == nil {
		return nil, noDevice(in.SerialNumber)
	}
	d.Tags = dropTags(d.Tags, in.TagKeys, exactCase)
	return &iam.UntagMFADeviceOutput{}, s.mfa.Put(tx, k, d)
}

func (s *Service) listMFADeviceTags(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListMFADeviceTagsInput) (*iam.ListMFADeviceTagsOutput, error) {
	d, _ := s.device(tx, c.Account, aws.ToString(in.SerialNumber))
	if d == nil {
		return nil, noDevice(in.SerialNumber)
	}
	tags, p, err := tagPage("ListMFADeviceTags", in.Marker, in.MaxItems, d.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.ListMFADeviceTagsOutput{Tags: tags, IsTruncated: p.more, Marker: p.marker}, nil
}
