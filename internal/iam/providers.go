package iam

import (
	"context"
	"encoding/xml"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) providerOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateOpenIDConnectProvider", s.createOIDC, one(func(_ *store.Tx, c *api.Call, in *iam.CreateOpenIDConnectProviderInput) (entity, error) {
			return entity{arn: iamARN(c.Account, "oidc-provider", "/", strings.TrimPrefix(aws.ToString(in.Url), "https://"))}, nil
		}, []more[iam.CreateOpenIDConnectProviderInput]{withTags(func(in *iam.CreateOpenIDConnectProviderInput) []types.Tag { return in.Tags })})),
		api.NewView("iam", "GetOpenIDConnectProvider", s.getOIDC, onProvider(s, func(in *iam.GetOpenIDConnectProviderInput) *string { return in.OpenIDConnectProviderArn })),
		api.NewUpdate("iam", "DeleteOpenIDConnectProvider", s.deleteOIDC, onProvider(s, func(in *iam.DeleteOpenIDConnectProviderInput) *string { return in.OpenIDConnectProviderArn })),
		api.NewView("iam", "ListOpenIDConnectProviders", s.listOIDC),
		api.NewUpdate("iam", "AddClientIDToOpenIDConnectProvider", s.addClientID, onProvider(s, func(in *iam.AddClientIDToOpenIDConnectProviderInput) *string { return in.OpenIDConnectProviderArn })),
		api.NewUpdate("iam", "RemoveClientIDFromOpenIDConnectProvider", s.removeClientID, onProvider(s, func(in *iam.RemoveClientIDFromOpenIDConnectProviderInput) *string { return in.OpenIDConnectProviderArn })),
		api.NewUpdate("iam", "UpdateOpenIDConnectProviderThumbprint", s.updateThumbprint, onProvider(s, func(in *iam.UpdateOpenIDConnectProviderThumbprintInput) *string { return in.OpenIDConnectProviderArn })),
		api.NewUpdate("iam", "TagOpenIDConnectProvider", s.tagOIDC, onProvider(s, func(in *iam.TagOpenIDConnectProviderInput) *string { return in.OpenIDConnectProviderArn }, withTags(func(in *iam.TagOpenIDConnectProviderInput) []types.Tag { return in.Tags }))),
		api.NewUpdate("iam", "UntagOpenIDConnectProvider", s.untagOIDC, onProvider(s, func(in *iam.UntagOpenIDConnectProviderInput) *string { return in.OpenIDConnectProviderArn }, withTagKeys(func(in *iam.UntagOpenIDConnectProviderInput) []string { return in.TagKeys }))),
		api.NewView("iam", "ListOpenIDConnectProviderTags", s.listOIDCTags, onProvider(s, func(in *iam.ListOpenIDConnectProviderTagsInput) *string { return in.OpenIDConnectProviderArn })),

		api.NewUpdate("iam", "CreateSAMLProvider", s.createSAML, onNew("saml-provider", func(in *iam.CreateSAMLProviderInput) (*string, *string) { return nil, in.Name },
			withTags(func(in *iam.CreateSAMLProviderInput) []types.Tag { return in.Tags })), api.Refuses("AddPrivateKey", "AssertionEncryptionMode")),
		api.NewView("iam", "GetSAMLProvider", s.getSAML, onProvider(s, func(in *iam.GetSAMLProviderInput) *string { return in.SAMLProviderArn })),
		api.NewUpdate("iam", "UpdateSAMLProvider", s.updateSAML, onProvider(s, func(in *iam.UpdateSAMLProviderInput) *string { return in.SAMLProviderArn }), api.Refuses("AddPrivateKey", "RemovePrivateKey", "AssertionEncryptionMode")),
		api.NewUpdate("iam", "DeleteSAMLProvider", s.deleteSAML, onProvider(s, func(in *iam.DeleteSAMLProviderInput) *string { return in.SAMLProviderArn })),
		api.NewView("iam", "ListSAMLProviders", s.listSAML),
		api.NewUpdate("iam", "TagSAMLProvider", s.tagSAML, onProvider(s, func(in *iam.TagSAMLProviderInput) *string { return in.SAMLProviderArn }, withTags(func(in *iam.TagSAMLProviderInput) []types.Tag { return in.Tags }))),
		api.NewUpdate("iam", "UntagSAMLProvider", s.untagSAML, onProvider(s, func(in *iam.UntagSAMLProviderInput) *string { return in.SAMLProviderArn }, withTagKeys(func(in *iam.UntagSAMLProviderInput) []string { return in.TagKeys }))),
		api.NewView("iam", "ListSAMLProviderTags", s.listSAMLTags, onProvider(s, func(in *iam.ListSAMLProviderTagsInput) *string { return in.SAMLProviderArn })),
	}
}

const (
	oidcKind = "oidc-provider"
	samlKind = "saml-provider"
)

func providerKey(account, kind, name string) string {
	return account + "/" + strings.TrimSuffix(kind, "-provider") + "/" + name
}

// provider finds an identity provider of the account by its ARN, or nil.
func (s *Service) provider(tx *store.Tx, account, arn string) *provider {
	rest, ok := strings.CutPrefix(arn, "arn:aws:iam::"+account+":")
	kind, name, found := strings.Cut(rest, "/")
	if !ok || !found || name == "" || kind != oidcKind && kind != samlKind {
		return nil
	}
	return s.providers.Get(tx, providerKey(account, kind, name))
}

// editProvider is a private copy of a provider of that kind.
func (s *Service) editProvider(tx *store.Tx, c *api.Call, kind string, arn *string) (*provider, error) {
	p := s.provider(tx, c.Account, aws.ToString(arn))
	if p == nil || p.Kind != kind {
		if kind == oidcKind {
			return nil, noSuchEntity("OpenIDConnect Provider not found for arn %s", aws.ToString(arn))
		}
		return nil, noSuchEntity("Manifest not found for arn %s", aws.ToString(arn))
	}
	return s.providers.Edit(tx, providerKey(p.Account, p.Kind, p.Name)), nil
}

func (s *Service) putProvider(tx *store.Tx, p *provider) error {
	return s.providers.Put(tx, providerKey(p.Account, p.Kind, p.Name), p)
}

func (s *Service) providersOf(tx *store.Tx, account, kind string) []*provider {
	var out []*provider
	s.providers.Scan(tx, providerKey(account, kind, ""), "", func(_ string, p *provider) bool { out = append(out, p); return true })
	return out
}

func checkThumbprints(list []string) error {
	if len(list) > 5 {
		return invalidInput("Thumbprint list must contain fewer than 5 entries.")
	}
	for _, t := range list {
		if len(t) != 40 || strings.Trim(strings.ToLower(t), "0123456789abcdef") != "" {
			return invalidInput("Thumbprint must contain only hexadecimal characters and be 40 characters long.")
		}
	}
	return nil
}

func (s *Service) createOIDC(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateOpenIDConnectProviderInput) (*iam.CreateOpenIDConnectProviderOutput, error) {
	u, err := url.Parse(aws.ToString(in.Url))
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, validation("Invalid Open ID Connect Provider URL")
	}
	name := u.Host + strings.TrimSuffix(u.Path, "/")
	if s.providers.Get(tx, providerKey(c.Account, oidcKind, name)) != nil {
		return nil, entityExists("Provider with url https://%s already exists.", name)
	}
	if len(in.ClientIDList) > 100 {
		return nil, limitExceeded("Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: 100")
	}
	if err := checkThumbprints(in.ThumbprintList); err != nil {
		return nil, err
	}
	if len(s.providersOf(tx, c.Account, oidcKind)) >= maxProviders {
		return nil, limitExceeded("Cannot exceed quota for OpenIdConnectProvidersPerAccount: %d", maxProviders)
	}
	tags, err := newTags(in.Tags, exactCase)
	if err != nil {
		return nil, err
	}
	p := &provider{Account: c.Account, Kind: oidcKind, Name: name, Created: s.now(c), ClientIDs: slices.Clone(in.ClientIDList), Thumbprints: slices.Clone(in.ThumbprintList), Tags: tags}
	if err := s.putProvider(tx, p); err != nil {
		return nil, err
	}
	return &iam.CreateOpenIDConnectProviderOutput{OpenIDConnectProviderArn: aws.String(p.arn()), Tags: showTags(tags)}, nil
}

func (s *Service) getOIDC(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetOpenIDConnectProviderInput) (*iam.GetOpenIDConnectProviderOutput, error) {
	p, err := s.editProvider(tx, c, oidcKind, in.OpenIDConnectProviderArn)
	if err != nil {
		return nil, err
	}
	return &iam.GetOpenIDConnectProviderOutput{Url: aws.String(p.Name), ClientIDList: p.ClientIDs, ThumbprintList: p.Thumbprints, CreateDate: aws.Time(p.Created), Tags: allTags(p.Tags)}, nil
}

func (s *Service) deleteOIDC(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteOpenIDConnectProviderInput) (*iam.DeleteOpenIDConnectProviderOutput, error) {
	p := s.provider(tx, c.Account, aws.ToString(in.OpenIDConnectProviderArn))
	if p == nil || p.Kind != oidcKind {
		return nil, noSuchEntity("OpenId connect Provider %s cannot be found.", aws.ToString(in.OpenIDConnectProviderArn))
	}
	return &iam.DeleteOpenIDConnectProviderOutput{}, s.providers.Delete(tx, providerKey(p.Account, p.Kind, p.Name))
}

func (s *Service) listOIDC(_ context.Context, tx *store.Tx, c *api.Call, _ *iam.ListOpenIDConnectProvidersInput) (*iam.ListOpenIDConnectProvidersOutput, error) {
	out := &iam.ListOpenIDConnectProvidersOutput{OpenIDConnectProviderList: []types.OpenIDConnectProviderListEntry{}}
	for _, p := range s.providersOf(tx, c.Account, oidcKind) {
		out.OpenIDConnectProviderList = append(out.OpenIDConnectProviderList, types.OpenIDConnectProviderListEntry{Arn: aws.String(p.arn())})
	}
	return out, nil
}

func (s *Service) addClientID(_ context.Context, tx *store.Tx, c *api.Call, in *iam.AddClientIDToOpenIDConnectProviderInput) (*iam.AddClientIDToOpenIDConnectProviderOutput, error) {
	p, err := s.editProvider(tx, c, oidcKind, in.OpenIDConnectProviderArn)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(p.ClientIDs, aws.ToString(in.ClientID)) {
		p.ClientIDs = append(p.ClientIDs, aws.ToString(in.ClientID))
	}
	if len(p.ClientIDs) > 100 {
		return nil, limitExceeded("Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: 100")
	}
	return &iam.AddClientIDToOpenIDConnectProviderOutput{}, s.putProvider(tx, p)
}

func (s *Service) removeClientID(_ context.Context, tx *store.Tx, c *api.Call, in *iam.RemoveClientIDFromOpenIDConnectProviderInput) (*iam.RemoveClientIDFromOpenIDConnectProviderOutput, error) {
	p, err := s.editProvider(tx, c, oidcKind, in.OpenIDConnectProviderArn)
	if err != nil {
		return nil, err
	}
	p.ClientIDs = without(p.ClientIDs, aws.ToString(in.ClientID)) // as AWS: an absent one is no error
	return &iam.RemoveClientIDFromOpenIDConnectProviderOutput{}, s.putProvider(tx, p)
}

func (s *Service) updateThumbprint(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateOpenIDConnectProviderThumbprintInput) (*iam.UpdateOpenIDConnectProviderThumbprintOutput, error) {
	p, err := s.editProvider(tx, c, oidcKind, in.OpenIDConnectProviderArn)
	if err != nil {
		return nil, err
	}
	if err := checkThumbprints(in.ThumbprintList); err != nil {
		return nil, err
	}
	p.Thumbprints = slices.Clone(in.ThumbprintList)
	return &iam.UpdateOpenIDConnectProviderThumbprintOutput{}, s.putProvider(tx, p)
}

func (s *Service) tagProvider(tx *store.Tx, c *api.Call, kind string, arn *string, tags []types.Tag) error {
	p, err := s.editProvider(tx, c, kind, arn)
	if err != nil {
		return err
	}
	if p.Tags, err = mergeTags(p.Tags, tags, exactCase); err != nil {
		return err
	}
	return s.putProvider(tx, p)
}

func (s *Service) untagProvider(tx *store.Tx, c *api.Call, kind string, arn *string, keys []string) error {
	p, err := s.editProvider(tx, c, kind, arn)
	if err != nil {
		return err
	}
	p.Tags = dropTags(p.Tags, keys, exactCase)
	return s.putProvider(tx, p)
}

func (s *Service) tagOIDC(_ context.Context, tx *store.Tx, c *api.Call, in *iam.TagOpenIDConnectProviderInput) (*iam.TagOpenIDConnectProviderOutput, error) {
	return &iam.TagOpenIDConnectProviderOutput{}, s.tagProvider(tx, c, oidcKind, in.OpenIDConnectProviderArn, in.Tags)
}

func (s *Service) untagOIDC(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UntagOpenIDConnectProviderInput) (*iam.UntagOpenIDConnectProviderOutput, error) {
	return &iam.UntagOpenIDConnectProviderOutput{}, s.untagProvider(tx, c, oidcKind, in.OpenIDConnectProviderArn, in.TagKeys)
}

func (s *Service) listOIDCTags(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListOpenIDConnectProviderTagsInput) (*iam.ListOpenIDConnectProviderTagsOutput, error) {
	p, err := s.editProvider(tx, c, oidcKind, in.OpenIDConnectProviderArn)
	if err != nil {
		return nil, err
	}
	tags, pg, err := tagPage("ListOpenIDConnectProviderTags", in.Marker, in.MaxItems, p.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.ListOpenIDConnectProviderTagsOutput{Tags: tags, IsTruncated: pg.more, Marker: pg.marker}, nil
}

// checkMetadata reads a SAML 2.0 metadata document far enough to know that it
// describes an identity provider. validUntil is zero when it does not expire.
func checkMetadata(text string) (validUntil time.Time, err error) {
	var d struct {
		XMLName    xml.Name
		EntityID   string     `xml:"entityID,attr"`
		ValidUntil string     `xml:"validUntil,attr"`
		IDP        []struct{} `xml:"urn:oasis:names:tc:SAML:2.0:metadata IDPSSODescriptor"`
	}
	if err := xml.Unmarshal([]byte(text), &d); err != nil || d.XMLName.Local != "EntityDescriptor" || d.XMLName.Space != "urn:oasis:names:tc:SAML:2.0:metadata" || d.EntityID == "" || len(d.IDP) == 0 {
		return time.Time{}, invalidInput("Could not parse metadata: it must be a SAML 2.0 EntityDescriptor with an IDPSSODescriptor.")
	}
	if d.ValidUntil != "" {
		if validUntil, err = time.Parse(time.RFC3339, d.ValidUntil); err != nil {
			return time.Time{}, invalidInput("Could not parse metadata: validUntil is not a time.")
		}
	}
	return validUntil.UTC(), nil
}

func (s *Service) createSAML(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateSAMLProviderInput) (*iam.CreateSAMLProviderOutput, error) {
	name := aws.ToString(in.Name)
	if s.providers.Get(tx, providerKey(c.Account, samlKind, name)) != nil {
		return nil, entityExists("SAMLProvider with name %s already exists.", name)
	}
	until, err := checkMetadata(aws.ToString(in.SAMLMetadataDocument))
	if err != nil {
		return nil, err
	}
	if len(s.providersOf(tx, c.Account, samlKind)) >= maxProviders {
		return nil, limitExceeded("Cannot exceed quota for SAMLProvidersPerAccount: %d", maxProviders)
	}
	tags, err := newTags(in.Tags, exactCase)
	if err != nil {
		return nil, err
	}
	p := &provider{Account: c.Account, Kind: samlKind, Name: name, UUID: ids.UUID(), Created: s.now(c), ValidUntil: until, Metadata: aws.ToString(in.SAMLMetadataDocument), Tags: tags}
	if err := s.putProvider(tx, p); err != nil {
		return nil, err
	}
	return &iam.CreateSAMLProviderOutput{SAMLProviderArn: aws.String(p.arn()), Tags: showTags(tags)}, nil
}

func (s *Service) getSAML(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetSAMLProviderInput) (*iam.GetSAMLProviderOutput, error) {
	p, err := s.editProvider(tx, c, samlKind, in.SAMLProviderArn)
	if err != nil {
		return nil, err
	}
	out := &iam.GetSAMLProviderOutput{SAMLMetadataDocument: aws.String(p.Metadata), SAMLProviderUUID: aws.String(p.UUID), CreateDate: aws.Time(p.Created), ValidUntil: aws.Time(p.validUntil()), Tags: allTags(p.Tags),
		AssertionEncryptionMode: types.AssertionEncryptionModeTypeAllowed, PrivateKeyList: []types.SAMLPrivateKey{}}
	return out, nil
}

func (s *Service) updateSAML(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateSAMLProviderInput) (*iam.UpdateSAMLProviderOutput, error) {
	p, err := s.editProvider(tx, c, samlKind, in.SAMLProviderArn)
	if err != nil {
		return nil, err
	}
	if in.SAMLMetadataDocument != nil {
		if p.ValidUntil, err = checkMetadata(*in.SAMLMetadataDocument); err != nil {
			return nil, err
		}
		p.Metadata = *in.SAMLMetadataDocument
	}
	if err := s.putProvider(tx, p); err != nil {
		return nil, err
	}
	return &iam.UpdateSAMLProviderOutput{SAMLProviderArn: aws.String(p.arn())}, nil
}

func (s *Service) deleteSAML(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteSAMLProviderInput) (*iam.DeleteSAMLProviderOutput, error) {
	p, err := s.editProvider(tx, c, samlKind, in.SAMLProviderArn)
	if err != nil {
		return nil, err
	}
	return &iam.DeleteSAMLProviderOutput{}, s.providers.Delete(tx, providerKey(p.Account, p.Kind, p.Name))
}

func (s *Service) listSAML(_ context.Context, tx *store.Tx, c *api.Call, _ *iam.ListSAMLProvidersInput) (*iam.ListSAMLProvidersOutput, error) {
	out := &iam.ListSAMLProvidersOutput{SAMLProviderList: []types.SAMLProviderListEntry{}}
	for _, p := range s.providersOf(tx, c.Account, samlKind) {
		out.SAMLProviderList = append(out.SAMLProviderList, types.SAMLProviderListEntry{Arn: aws.String(p.arn()), CreateDate: aws.Time(p.Created), ValidUntil: aws.Time(p.validUntil())})
	}
	return out, nil
}

func (s *Service) tagSAML(_ context.Context, tx *store.Tx, c *api.Call, in *iam.TagSAMLProviderInput) (*iam.TagSAMLProviderOutput, error) {
	return &iam.TagSAMLProviderOutput{}, s.tagProvider(tx, c, samlKind, in.SAMLProviderArn, in.Tags)
}

func (s *Service) untagSAML(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UntagSAMLProviderInput) (*iam.UntagSAMLProviderOutput, error) {
	return &iam.UntagSAMLProviderOutput{}, s.untagProvider(tx, c, samlKind, in.SAMLProviderArn, in.TagKeys)
}

func (s *Service) listSAMLTags(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListSAMLProviderTagsInput) (*iam.ListSAMLProviderTagsOutput, error) {
	p, err := s.editProvider(tx, c, samlKind, in.SAMLProviderArn)
	if err != nil {
		return nil, err
	}
	tags, pg, err := tagPage("ListSAMLProviderTags", in.Marker, in.MaxItems, p.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.ListSAMLProviderTagsOutput{Tags: tags, IsTruncated: pg.more, Marker: pg.marker}, nil
}

// OIDCProvider is the account's provider for the issuer of a token, for STS.
func (s *Service) OIDCProvider(tx *store.Tx, account, issuer string) *api.IdentityProvider {
	name, ok := strings.CutPrefix(issuer, "https://")
	name = strings.TrimSuffix(name, "/")
	if !ok || name == "" {
		return nil
	}
	return showProvider(s.providers.Get(tx, providerKey(account, oidcKind, name)))
}

// SAMLProvider is the account's SAML provider of that ARN, for STS.
func (s *Service) SAMLProvider(tx *store.Tx, account, arn string) *api.IdentityProvider {
	p := s.provider(tx, account, arn)
	if p == nil || p.Kind != samlKind {
		return nil
	}
	return showProvider(p)
}

func showProvider(p *provider) *api.IdentityProvider {
	if p == nil {
		return nil
	}
	return &api.IdentityProvider{ARN: p.arn(), Name: p.Name, ClientIDs: p.ClientIDs, Thumbprints: p.Thumbprints, Metadata: p.Metadata}
}
