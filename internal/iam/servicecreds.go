package iam

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) serviceCredentialOps() []api.Operation {
	hidden := api.Sensitive("ServicePassword", "ServiceCredentialSecret")
	return []api.Operation{
		api.NewUpdate("iam", "CreateServiceSpecificCredential", s.createServiceSpecificCredential, onUser(s, func(in *iam.CreateServiceSpecificCredentialInput) *string { return in.UserName },
			func(in *iam.CreateServiceSpecificCredentialInput, _ entity, keys map[string][]string) {
				keys["iam:ServiceSpecificCredentialServiceName"] = []string{aws.ToString(in.ServiceName)}
			}), api.Refuses("CredentialAgeDays"), hidden),
		api.NewView("iam", "ListServiceSpecificCredentials", s.listServiceSpecificCredentials, onUser(s, func(in *iam.ListServiceSpecificCredentialsInput) *string {
			if aws.ToBool(in.AllUsers) {
				return aws.String("*")
			}
			return in.UserName
		})),
		api.NewUpdate("iam", "ResetServiceSpecificCredential", s.resetServiceSpecificCredential, onUser(s, func(in *iam.ResetServiceSpecificCredentialInput) *string { return in.UserName }), hidden),
		api.NewUpdate("iam", "UpdateServiceSpecificCredential", s.updateServiceSpecificCredential, onUser(s, func(in *iam.UpdateServiceSpecificCredentialInput) *string { return in.UserName })),
		api.NewUpdate("iam", "DeleteServiceSpecificCredential", s.deleteServiceSpecificCredential, onUser(s, func(in *iam.DeleteServiceSpecificCredentialInput) *string { return in.UserName })),
	}
}

// passwordServices are the services that take a user name and password of this
// kind. Amazon Bedrock's API keys, which expire, are not made.
// Source: IAM User Guide, "Service-specific credentials for IAM users".
var passwordServices = []string{"cassandra.amazonaws.com", "codecommit.amazonaws.com"}

func checkPasswordService(name string) error {
	if !slices.Contains(passwordServices, name) {
		return noSuchEntity("No such service %s is supported for Service Specific Credentials", name)
	}
	return nil
}

// newPassword draws 32 bytes, which need no slow hash, and keeps their SHA-256.
func (k *serviceCredential) newPassword() string {
	b := secret.Random(32)
	defer b.Wipe()
	text := base64.StdEncoding.EncodeToString(b.Expose())
	sum := sha256.Sum256([]byte(text))
	k.SHA256 = sum[:]
	return text
}

func showServiceCredential(u *user, k *serviceCredential, password string) *types.ServiceSpecificCredential {
	return &types.ServiceSpecificCredential{UserName: aws.String(u.Name), ServiceName: aws.String(k.Service), ServiceUserName: aws.String(k.UserName), ServicePassword: aws.String(password),
		ServiceSpecificCredentialId: aws.String(k.ID), Status: statusOf(k.Inactive), CreateDate: aws.Time(k.Created)}
}

func (s *Service) createServiceSpecificCredential(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateServiceSpecificCredentialInput) (*iam.CreateServiceSpecificCredentialOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	service := aws.ToString(in.ServiceName)
	if err := checkPasswordService(service); err != nil {
		return nil, err
	}
	n := 0
	taken := map[string]bool{}
	for _, k := range u.ServiceCredentials {
		if k.Service == service {
			n++
		}
		taken[k.UserName] = true
	}
	if n >= maxServiceCredentials {
		return nil, limitExceeded("Cannot exceed quota for ServiceSpecificCredentialsPerUser: %d", maxServiceCredentials)
	}
	// The user name stays when the user is renamed.
	k := serviceCredential{ID: ids.IAM("ACCA", 17), Service: service, UserName: u.Name + "-at-" + c.Account, Created: s.now(c)}
	for i := 1; taken[k.UserName]; i++ {
		k.UserName = u.Name + "+" + strconv.Itoa(i) + "-at-" + c.Account
	}
	password := k.newPassword()
	u.ServiceCredentials = append(u.ServiceCredentials, k)
	if err := s.putUser(tx, u); err != nil {
		return nil, err
	}
	return &iam.CreateServiceSpecificCredentialOutput{ServiceSpecificCredential: showServiceCredential(u, &k, password)}, nil
}

func (s *Service) listServiceSpecificCredentials(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListServiceSpecificCredentialsInput) (*iam.ListServiceSpecificCredentialsOutput, error) {
	p, err := newPage("ListServiceSpecificCredentials", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	if in.ServiceName != nil {
		if err := checkPasswordService(*in.ServiceName); err != nil {
			return nil, err
		}
	}
	out := &iam.ListServiceSpecificCredentialsOutput{ServiceSpecificCredentials: []types.ServiceSpecificCredentialMetadata{}}
	var all []types.ServiceSpecificCredentialMetadata
	add := func(u *user) {
		for _, k := range u.ServiceCredentials {
			if in.ServiceName == nil || *in.ServiceName == k.Service {
				all = append(all, types.ServiceSpecificCredentialMetadata{UserName: aws.String(u.Name), ServiceName: aws.String(k.Service), ServiceUserName: aws.String(k.UserName),
					ServiceSpecificCredentialId: aws.String(k.ID), Status: statusOf(k.Inactive), CreateDate: aws.Time(k.Created)})
			}
		}
	}
	if aws.ToBool(in.AllUsers) {
		if in.UserName != nil {
			return nil, validation("UserName and AllUsers cannot both be given.")
		}
		s.users.Scan(tx, c.Account+"/", "", func(_ string, u *user) bool { add(u); return true })
	} else if u, err := s.lookUser(tx, c, in.UserName); err != nil {
		return nil, err
	} else if u != nil {
		add(u)
	}
	id := func(k types.ServiceSpecificCredentialMetadata) string { return *k.ServiceSpecificCredentialId }
	slices.SortFunc(all, func(a, b types.ServiceSpecificCredentialMetadata) int { return strings.Compare(id(a), id(b)) })
	out.ServiceSpecificCredentials = slicePage(all, p, id)
	out.IsTruncated, out.Marker = p.more, p.marker
	return out, nil
}

// editServiceCredential is a private copy of a user and the place of the
// credential in it.
func (s *Service) editServiceCredential(tx *store.Tx, c *api.Call, name, id *string) (*user, int, error) {
	n, root, err := self(c, name)
	if err != nil {
		return nil, 0, err
	}
	missing := noSuchEntity("No such credential %s exists", aws.ToString(id))
	if root {
		return nil, 0, missing
	}
	u, err := s.editUser(tx, c.Account, n)
	if err != nil {
		return nil, 0, err
	}
	i := slices.IndexFunc(u.ServiceCredentials, func(k serviceCredential) bool { return k.ID == aws.ToString(id) })
	if i < 0 {
		return nil, 0, missing
	}
	return u, i, nil
}

func (s *Service) resetServiceSpecificCredential(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ResetServiceSpecificCredentialInput) (*iam.ResetServiceSpecificCredentialOutput, error) {
	u, i, err := s.editServiceCredential(tx, c, in.UserName, in.ServiceSpecificCredentialId)
	if err != nil {
		return nil, err
	}
	k := &u.ServiceCredentials[i]
	password := k.newPassword()
	if err := s.putUser(tx, u); err != nil {
		return nil, err
	}
	return &iam.ResetServiceSpecificCredentialOutput{ServiceSpecificCredential: showServiceCredential(u, k, password)}, nil
}

func (s *Service) updateServiceSpecificCredential(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateServiceSpecificCredentialInput) (*iam.UpdateServiceSpecificCredentialOutput, error) {
	u, i, err := s.editServiceCredential(tx, c, in.UserName, in.ServiceSpecificCredentialId)
	if err != nil {
		return nil, err
	}
	if u.ServiceCredentials[i].Inactive, err = inactive(in.Status); err != nil {
		return nil, err
	}
	return &iam.UpdateServiceSpecificCredentialOutput{}, s.putUser(tx, u)
}

func (s *Service) deleteServiceSpecificCredential(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteServiceSpecificCredentialInput) (*iam.DeleteServiceSpecificCredentialOutput, error) {
	u, i, err := s.editServiceCredential(tx, c, in.UserName, in.ServiceSpecificCredentialId)
	if err != nil {
		return nil, err
	}
	u.ServiceCredentials = slices.Delete(u.ServiceCredentials, i, i+1)
	return &iam.DeleteServiceSpecificCredentialOutput{}, s.putUser(tx, u)
}
