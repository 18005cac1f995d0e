package wire

import (
	"reflect"
	"strings"

	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

type variantType struct {
	name string
	typ  reflect.Type
}

// unions lists the members of each union in the SDK's structs: a union is an
// interface there, and reflection cannot list what implements it.
var unions = map[reflect.Type][]variantType{}

func union[T any](members ...any) {
	iface := reflect.TypeFor[T]()
	for _, m := range members {
		t := reflect.TypeOf(m).Elem()
		_, name, _ := strings.Cut(t.Name(), "Member")
		unions[iface] = append(unions[iface], variantType{name: name, typ: t})
	}
}

func init() {
	union[wstypes.ImageSourceIdentifier](
		&wstypes.ImageSourceIdentifierMemberEc2ImageId{},
		&wstypes.ImageSourceIdentifierMemberEc2ImportTaskId{},
		&wstypes.ImageSourceIdentifierMemberImageBuildVersionArn{})
	union[iamtypes.PolicyIdentifier](
		&iamtypes.PolicyIdentifierMemberInlinePolicyIdentifier{},
		&iamtypes.PolicyIdentifierMemberPolicyArn{},
		&iamtypes.PolicyIdentifierMemberPolicyType{})
	union[dsdata.AttributeValue](
		&dsdata.AttributeValueMemberBOOL{},
		&dsdata.AttributeValueMemberN{},
		&dsdata.AttributeValueMemberS{},
		&dsdata.AttributeValueMemberSS{})
}
