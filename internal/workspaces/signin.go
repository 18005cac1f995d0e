package workspaces

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// The properties of clients and of sign-in with SAML and certificates are part of a
// registered directory. What is not there can be switched off, as it is, and not on.

func (s *Service) signInOperations() []api.Operation {
	onDirectories := func(ids func(any) []string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, _ *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return s.targets(c, "directory", ids(in)), nil
			}
		}
	}
	return []api.Operation{
		api.NewView(name, "DescribeClientProperties", s.describeClientProperties, onDirectories(func(in any) []string { return in.(*workspaces.DescribeClientPropertiesInput).ResourceIds })),
		api.NewUpdate(name, "ModifyClientProperties", s.modifyClientProperties, onDirectories(func(in any) []string { return []string{deref(in.(*workspaces.ModifyClientPropertiesInput).ResourceId)} })),
		api.NewView(name, "DescribeClientBranding", s.describeBranding, onDirectories(func(in any) []string { return []string{deref(in.(*workspaces.DescribeClientBrandingInput).ResourceId)} })),
		api.NewUpdate(name, "ModifySamlProperties", s.modifySAML, onDirectories(func(in any) []string { return []string{deref(in.(*workspaces.ModifySamlPropertiesInput).ResourceId)} })),
		api.NewUpdate(name, "ModifyCertificateBasedAuthProperties", s.modifyCertificateAuth, api.Refuses("CertificateBasedAuthProperties.CertificateAuthorityArn"),
			onDirectories(func(in any) []string {
				return []string{deref(in.(*workspaces.ModifyCertificateBasedAuthPropertiesInput).ResourceId)}
			})),
	}
}

func notAvailable(what string) error {
	return &wstypes.OperationNotSupportedException{Message: &what}
}

func (s *Service) describeClientProperties(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeClientPropertiesInput) (*workspaces.DescribeClientPropertiesOutput, error) {
	out := &workspaces.DescribeClientPropertiesOutput{ClientPropertiesList: []wstypes.ClientPropertiesResult{}}
	for _, id := range in.ResourceIds {
		if s.directories.Get(tx, key(c.Account, c.Region, id)) == nil {
			return nil, notFound("directory", id)
		}
		out.ClientPropertiesList = append(out.ClientPropertiesList, wstypes.ClientPropertiesResult{ResourceId: &id,
			ClientProperties: &wstypes.ClientProperties{ReconnectEnabled: wstypes.ReconnectEnumDisabled, LogUploadEnabled: wstypes.LogUploadEnumDisabled}})
	}
	return out, nil
}

func (s *Service) modifyClientProperties(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.ModifyClientPropertiesInput) (*workspaces.ModifyClientPropertiesOutput, error) {
	return &workspaces.ModifyClientPropertiesOutput{}, s.editRegistration(tx, c, in.ResourceId, func(*registration) error {
		switch p := in.ClientProperties; {
		case p.ReconnectEnabled == wstypes.ReconnectEnumEnabled:
			return notAvailable("ReconnectEnabled: the client is the browser, which keeps no credentials.")
		case p.LogUploadEnabled == wstypes.LogUploadEnumEnabled:
			return notAvailable("LogUploadEnabled: the client is the browser, which uploads no logs.")
		}
		return nil
	})
}

// describeBranding: no device type has branding, which is what an empty answer says.
func (s *Service) describeBranding(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeClientBrandingInput) (*workspaces.DescribeClientBrandingOutput, error) {
	if s.directories.Get(tx, key(c.Account, c.Region, deref(in.ResourceId))) == nil {
		return nil, notFound("directory", deref(in.ResourceId))
	}
	return &workspaces.DescribeClientBrandingOutput{}, nil
}

// relayState is what SAML's relay state parameter is called unless it is set.
const relayState = "RelayState"

func (s *Service) modifySAML(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.ModifySamlPropertiesInput) (*workspaces.ModifySamlPropertiesOutput, error) {
	return &workspaces.ModifySamlPropertiesOutput{}, s.editRegistration(tx, c, in.ResourceId, func(r *registration) error {
		if p := in.SamlProperties; p != nil {
			if p.Status != "" && p.Status != wstypes.SamlStatusEnumDisabled {
				return notAvailable("SAML 2.0 sign-in to desktops is not available: users sign in with their directory. Status can only be DISABLED.")
			}
			setIf(&r.RelayState, p.RelayStateParameterName)
			setIf(&r.UserAccessURL, p.UserAccessUrl)
		}
		if slices.Contains(in.PropertiesToDelete, wstypes.DeletableSamlPropertySamlPropertiesRelayStateParameterName) {
			r.RelayState = ""
		}
		if slices.Contains(in.PropertiesToDelete, wstypes.DeletableSamlPropertySamlPropertiesUserAccessUrl) {
			r.UserAccessURL = ""
		}
		return nil
	})
}

func (s *Service) modifyCertificateAuth(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.ModifyCertificateBasedAuthPropertiesInput) (*workspaces.ModifyCertificateBasedAuthPropertiesOutput, error) {
	_ = in.PropertiesToDelete // no certificate authority is set
	return &workspaces.ModifyCertificateBasedAuthPropertiesOutput{}, s.editRegistration(tx, c, in.ResourceId, func(*registration) error {
		if p := in.CertificateBasedAuthProperties; p != nil && p.Status == wstypes.CertificateBasedAuthStatusEnumEnabled {
			return notAvailable("Certificate-based authentication is not available: it needs SAML 2.0 sign-in. Status can only be DISABLED.")
		}
		return nil
	})
}

// showSignIn adds to a directory what the operations above change.
func (r *registration) showSignIn(o *wstypes.WorkspaceDirectory) {
	state := r.RelayState
	if state == "" {
		state = relayState
	}
	o.SamlProperties = &wstypes.SamlProperties{Status: wstypes.SamlStatusEnumDisabled, RelayStateParameterName: aws.String(state), UserAccessUrl: opt(r.UserAccessURL)}
	o.CertificateBasedAuthProperties = &wstypes.CertificateBasedAuthProperties{Status: wstypes.CertificateBasedAuthStatusEnumDisabled}
}
