package directory

import (
	"context"
	"reflect"

	ds "github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Operations that would make what cannot exist with the embedded driver: they answer
// with an error that their page documents, and say why.

func (s *Service) refusedOperations() []api.Operation {
	return []api.Operation{
		refused[ds.ConnectDirectoryInput, ds.ConnectDirectoryOutput](s, "ConnectDirectory", connectorLimit, "Directory limit exceeded. A maximum of 0 AD Connector directories may be created: the embedded driver forwards nothing to another directory."),
		refused[ds.CreateTrustInput, ds.CreateTrustOutput](s, "CreateTrust", notSupported, "There are no trusts: the directory speaks no Kerberos."),
		refused[ds.ShareDirectoryInput, ds.ShareDirectoryOutput](s, "ShareDirectory", notSupported, "Directories cannot be shared."),
		refused[ds.AddRegionInput, ds.AddRegionOutput](s, "AddRegion", notSupported, "A directory is in one region."),
		refused[ds.EnableLDAPSInput, ds.EnableLDAPSOutput](s, "EnableLDAPS", notSupported, "The directory serves no LDAP."),
		refused[ds.RegisterCertificateInput, ds.RegisterCertificateOutput](s, "RegisterCertificate", notSupported, "The directory serves no LDAP and takes no smart cards, so it has no use for certificates."),
		refused[ds.EnableClientAuthenticationInput, ds.EnableClientAuthenticationOutput](s, "EnableClientAuthentication", notSupported, "The directory takes no smart cards; EnableRadius gives a second factor."),
		refused[ds.CreateConditionalForwarderInput, ds.CreateConditionalForwarderOutput](s, "CreateConditionalForwarder", notSupported, "The directory serves no DNS."),
		refused[ds.CreateLogSubscriptionInput, ds.CreateLogSubscriptionOutput](s, "CreateLogSubscription", notSupported, "CloudWatch Logs is not available here; what happens to a directory is in CloudTrail."),
		refused[ds.UpdateSettingsInput, ds.UpdateSettingsOutput](s, "UpdateSettings", notSupported, "The directory has no settings of protocols and ciphers: it serves none."),
		refused[ds.AddIpRoutesInput, ds.AddIpRoutesOutput](s, "AddIpRoutes", clientError, "The directory is in no network: there is nothing to route."),
		refused[ds.RegisterEventTopicInput, ds.RegisterEventTopicOutput](s, "RegisterEventTopic", clientError, "Amazon SNS is not available here."),
		refused[ds.StartSchemaExtensionInput, ds.StartSchemaExtensionOutput](s, "StartSchemaExtension", clientError, "The directory's schema cannot be extended."),
	}
}

func connectorLimit(m string) error { return &dstypes.DirectoryLimitExceededException{Message: &m} }
func notSupported(m string) error   { return &dstypes.UnsupportedOperationException{Message: &m} }
func clientError(m string) error    { return &dstypes.ClientException{Message: &m} }

// refused makes an operation that fails with the reason, once the directory that it
// names, if it names one, is found and the caller may touch it.
func refused[In, Out any](s *Service, name string, fail func(reason string) error, reason string) api.Operation {
	var opts []api.Option
	if _, names := reflect.TypeFor[In]().FieldByName("DirectoryId"); names {
		opts = append(opts, on(s, func(in *In) *string {
			return reflect.ValueOf(in).Elem().FieldByName("DirectoryId").Interface().(*string)
		}))
	}
	for _, secret := range []string{"Password", "TrustPassword"} {
		if _, has := reflect.TypeFor[In]().FieldByName(secret); has {
			opts = append(opts, api.Sensitive(secret))
		}
	}
	return api.NewUpdate("ds", name, func(context.Context, *store.Tx, *api.Call, *In) (*Out, error) { return nil, fail(reason) }, opts...)
}
