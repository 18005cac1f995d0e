package directory_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	ds "github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/smithy-go"
	"layeh.com/radius"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// The operations, their errors and states, and that the secret is nowhere to be read;
// interop.TestRadius signs users in.
func TestRadiusOperations(t *testing.T) {
	ctx := context.Background()
	const shared = "a-secret-that-is-shared"
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server := radius.PacketServer{SecretSource: radius.StaticSecretSource([]byte(shared)), Handler: radius.HandlerFunc(func(w radius.ResponseWriter, r *radius.Request) { _ = w.Write(r.Response(radius.CodeAccessReject)) })}
	go func() { _ = server.Serve(conn) }()
	port := int32(conn.LocalAddr().(*net.UDPAddr).Port)

	s := apptest.New(t)
	made, err := s.DS().CreateMicrosoftAD(ctx, &ds.CreateMicrosoftADInput{Name: aws.String("ad.example.com"), Password: aws.String(goodPassword),
		VpcSettings: &dstypes.DirectoryVpcSettings{VpcId: aws.String("vpc-12345678"), SubnetIds: []string{"subnet-12345678", "subnet-12345679"}}})
	if err != nil {
		t.Fatal(err)
	}
	id := made.DirectoryId
	simple, err := s.DS().CreateDirectory(ctx, &ds.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String(goodPassword), Size: dstypes.DirectorySizeSmall})
	if err != nil {
		t.Fatal(err)
	}
	describe := func(id *string) dstypes.DirectoryDescription {
		out, err := s.DS().DescribeDirectories(ctx, &ds.DescribeDirectoriesInput{DirectoryIds: []string{*id}})
		if err != nil {
			t.Fatal(err)
		}
		return out.DirectoryDescriptions[0]
	}
	eventually := func(what string, f func() bool) {
		for n := 0; !f(); n++ {
			if n > 1000 {
				t.Fatalf("not within ten seconds: %s", what)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for _, d := range []*string{id, simple.DirectoryId} {
		eventually("the directory is Active", func() bool { return describe(d).Stage == dstypes.DirectoryStageActive })
	}
	good := func(change ...func(*dstypes.RadiusSettings)) *dstypes.RadiusSettings {
		r := &dstypes.RadiusSettings{RadiusServers: []string{"127.0.0.1"}, RadiusPort: &port, RadiusTimeout: aws.Int32(1), RadiusRetries: 1, SharedSecret: aws.String(shared), AuthenticationProtocol: dstypes.RadiusAuthenticationProtocolMschapv2}
		for _, f := range change {
			f(r)
		}
		return r
	}
	enable := func(id *string, r *dstypes.RadiusSettings) error {
		_, err := s.DS().EnableRadius(ctx, &ds.EnableRadiusInput{DirectoryId: id, RadiusSettings: r})
		return err
	}
	update := func(r *dstypes.RadiusSettings) error {
		_, err := s.DS().UpdateRadius(ctx, &ds.UpdateRadiusInput{DirectoryId: id, RadiusSettings: r})
		return err
	}
	disable := func() error {
		_, err := s.DS().DisableRadius(ctx, &ds.DisableRadiusInput{DirectoryId: id})
		return err
	}
	wantCode(t, "EnableRadius of a Simple AD", enable(simple.DirectoryId, good()), "ClientException")
	wantCode(t, "EnableRadius of no directory", enable(aws.String("d-0123456789"), good()), "EntityDoesNotExistException")
	wantCode(t, "UpdateRadius before EnableRadius", update(good()), "EntityDoesNotExistException")
	wantCode(t, "DisableRadius before EnableRadius", disable(), "EntityDoesNotExistException")
	for what, f := range map[string]func(*dstypes.RadiusSettings){
		"without a secret":  func(r *dstypes.RadiusSettings) { r.SharedSecret = nil },
		"without a server":  func(r *dstypes.RadiusSettings) { r.RadiusServers = nil },
		"with a URL":        func(r *dstypes.RadiusSettings) { r.RadiusServers = []string{"https://radius.example.com/"} },
		"with an IPv4 as 6": func(r *dstypes.RadiusSettings) { r.RadiusServersIpv6 = []string{"10.0.0.1"} },
	} {
		wantCode(t, "EnableRadius "+what, enable(id, good(f)), "InvalidParameterException")
	}
	// The rules of the API's model.
	for what, f := range map[string]func(*dstypes.RadiusSettings){
		"with EAP":            func(r *dstypes.RadiusSettings) { r.AuthenticationProtocol = "EAP" },
		"with a short secret": func(r *dstypes.RadiusSettings) { r.SharedSecret = aws.String("short") },
		"with port 80":        func(r *dstypes.RadiusSettings) { r.RadiusPort = aws.Int32(80) },
		"with a timeout of 0": func(r *dstypes.RadiusSettings) { r.RadiusTimeout = aws.Int32(0) },
		"with 11 retries":     func(r *dstypes.RadiusSettings) { r.RadiusRetries = 11 },
	} {
		wantCode(t, "EnableRadius "+what, enable(id, good(f)), "ValidationException")
	}
	if d := describe(id); d.RadiusSettings != nil || d.RadiusStatus != "" {
		t.Errorf("before EnableRadius: %+v, %s", d.RadiusSettings, d.RadiusStatus)
	}
	if err := enable(id, good()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "EnableRadius again", enable(id, good()), "EntityAlreadyExistsException")
	eventually("Completed", func() bool { return describe(id).RadiusStatus == dstypes.RadiusStatusCompleted })
	r := describe(id).RadiusSettings
	if r.SharedSecret != nil || *r.RadiusPort != port || *r.RadiusTimeout != 1 || r.RadiusRetries != 1 || len(r.RadiusServers) != 1 || r.AuthenticationProtocol != dstypes.RadiusAuthenticationProtocolMschapv2 {
		t.Errorf("DescribeDirectories shows %+v, want the settings without the secret", r)
	}
	// A wrong secret is found out; what is not given stays.
	if err := update(&dstypes.RadiusSettings{SharedSecret: aws.String("another-" + shared)}); err != nil {
		t.Fatal(err)
	}
	eventually("Failed", func() bool { return describe(id).RadiusStatus == dstypes.RadiusStatusFailed })
	if r := describe(id).RadiusSettings; *r.RadiusPort != port || r.AuthenticationProtocol != dstypes.RadiusAuthenticationProtocolMschapv2 {
		t.Errorf("after UpdateRadius of the secret: %+v", r)
	}
	events, err := s.CloudTrail().LookupEvents(ctx, &ct.LookupEventsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Events {
		if strings.Contains(*e.CloudTrailEvent, shared) {
			t.Errorf("the secret is on the record: %s", *e.CloudTrailEvent)
		}
	}
	if err := disable(); err != nil {
		t.Fatal(err)
	}
	if d := describe(id); d.RadiusSettings != nil || d.RadiusStatus != "" {
		t.Errorf("after DisableRadius: %+v, %s", d.RadiusSettings, d.RadiusStatus)
	}
	if err := enable(id, good()); err != nil { // a directory with a second factor is deleted with it
		t.Fatal(err)
	}
	if _, err := s.DS().DeleteDirectory(ctx, &ds.DeleteDirectoryInput{DirectoryId: id}); err != nil {
		t.Fatal(err)
	}
	eventually("the directory is gone", func() bool {
		_, err := s.DS().DescribeDirectories(ctx, &ds.DescribeDirectoriesInput{DirectoryIds: []string{*id}})
		return err != nil
	})
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}
