package directory_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	cttypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	ds "github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

// The way a user goes: a directory, a user, a password; refused without either of
// the two permissions; on the record without the password.
func TestThroughTheServer(t *testing.T) {
	ctx := context.Background()
	s := apptest.New(t)
	out, err := s.DS().CreateDirectory(ctx, &ds.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String(goodPassword), Size: dstypes.DirectorySizeSmall})
	if err != nil {
		t.Fatal(err)
	}
	dir := out.DirectoryId
	for n := 0; ; n++ {
		d, err := s.DS().DescribeDirectories(ctx, &ds.DescribeDirectoriesInput{DirectoryIds: []string{*dir}})
		if err != nil {
			t.Fatal(err)
		}
		if d.DirectoryDescriptions[0].Stage == dstypes.DirectoryStageActive {
			break
		}
		if n > 200 {
			t.Fatalf("the directory is %s after two seconds, want Active", d.DirectoryDescriptions[0].Stage)
		}
		time.Sleep(10 * time.Millisecond)
	}
	jane := aws.String("jane")
	made, err := s.DSData().CreateUser(ctx, &dsdata.CreateUserInput{DirectoryId: dir, SAMAccountName: jane, OtherAttributes: map[string]dsdata.AttributeValue{"department": &dsdata.AttributeValueMemberS{Value: "Sales"}}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(*made.SID, "-1103") {
		t.Errorf("SID %s, want …-1103", *made.SID)
	}
	if _, err := s.DS().ResetUserPassword(ctx, &ds.ResetUserPasswordInput{DirectoryId: dir, UserName: jane, NewPassword: aws.String("Another-Horse-8")}); err != nil {
		t.Fatal(err)
	}
	user, err := s.DSData().DescribeUser(ctx, &dsdata.DescribeUserInput{DirectoryId: dir, SAMAccountName: jane, OtherAttributes: []string{"department"}})
	if err != nil || *user.SID != *made.SID || user.OtherAttributes["department"].(*dsdata.AttributeValueMemberS).Value != "Sales" {
		t.Errorf("DescribeUser = %+v, %v", user, err)
	}
	if _, err := s.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("admin")}); err != nil {
		t.Fatal(err)
	}
	key, err := s.IAM().CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("admin")})
	if err != nil {
		t.Fatal(err)
	}
	admin := apptest.Keys(*key.AccessKey.AccessKeyId, *key.AccessKey.SecretAccessKey, "")
	for actions, want := range map[string]bool{`"ds-data:*"`: false, `"ds:*"`: false, `"ds-data:ListUsers","ds:AccessDSData"`: true} {
		if _, err := s.IAM().PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("admin"), PolicyName: aws.String("p"),
			PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[` + actions + `],"Resource":"*"}]}`)}); err != nil {
			t.Fatal(err)
		}
		_, err := s.DSData(admin).ListUsers(ctx, &dsdata.ListUsersInput{DirectoryId: dir})
		var e smithy.APIError
		if want != (err == nil) || !want && (!errors.As(err, &e) || e.ErrorCode() != "AccessDeniedException") {
			t.Errorf("ListUsers with %s = %v, want allowed %v", actions, err, want)
		}
	}
	events, err := s.CloudTrail().LookupEvents(ctx, &ct.LookupEventsInput{LookupAttributes: []cttypes.LookupAttribute{{AttributeKey: cttypes.LookupAttributeKeyReadOnly, AttributeValue: aws.String("false")}}})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range events.Events {
		found[*e.EventName] = true
		for _, secret := range []string{goodPassword, "Another-Horse-8"} {
			if strings.Contains(*e.CloudTrailEvent, secret) {
				t.Errorf("a password is on the record: %s", *e.CloudTrailEvent)
			}
		}
	}
	for _, name := range []string{"CreateDirectory", "CreateUser", "ResetUserPassword"} {
		if !found[name] {
			t.Errorf("%s is not on the record", name)
		}
	}
}
