package directory_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ds "github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/directory"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

// world is the service alone: its operations, authorised by nobody.
type world struct {
	*testing.T
	store      *store.Store
	service    *directory.Service
	clock      *clock.Manual
	ops        map[string]api.Operation
	registered map[string]bool
	account    string
	region     string
}

func open(t *testing.T) *world {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{DataDir: t.TempDir(), Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	root, err := keyring.OpenFile(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, store: s, clock: clock.NewManual(time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)), ops: map[string]api.Operation{}, registered: map[string]bool{}, account: "111122223333", region: "us-west-2"}
	w.service, err = directory.New(directory.Config{Store: s, Clock: w.clock, Root: root,
		Registered: func(_ *store.Tx, account, region, id string) bool { return w.registered[account+region+id] }})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range w.service.Operations() {
		w.ops[o.Service+":"+o.Name] = o
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); w.service.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; s.Close() })
	return w
}

// try calls an operation: targets, then the method, in one transaction.
func try[Out any](w *world, name string, in any) (*Out, error) {
	w.Helper()
	op, ok := w.ops[name]
	if !ok {
		w.Fatalf("no operation %s", name)
	}
	c := &api.Call{Account: w.account, Region: w.region, Time: w.clock.Now()}
	var out any
	err := w.store.Update(context.Background(), func(tx *store.Tx) (err error) {
		if op.Targets != nil {
			if _, err := op.Targets(context.Background(), tx, c, in); err != nil {
				return err
			}
		}
		out, err = op.Run(context.Background(), tx, c, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out.(*Out), nil
}

func must[Out any](w *world, name string, in any) *Out {
	w.Helper()
	out, err := try[Out](w, name, in)
	if err != nil {
		w.Fatalf("%s: %v", name, err)
	}
	return out
}

// refused checks the code of the error that an operation must give.
func refused(w *world, code, name string, in any) error {
	w.Helper()
	_, err := try[struct{}](w, name, in)
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		w.Errorf("%s(%+v) = %v, want %s", name, in, err, code)
	}
	return err
}

const goodPassword = "Correct-Horse-7"

func (w *world) directory() string {
	w.Helper()
	out := must[ds.CreateDirectoryOutput](w, "ds:CreateDirectory", &ds.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String(goodPassword), Size: dstypes.DirectorySizeSmall})
	w.await(*out.DirectoryId, dstypes.DirectoryStageActive)
	return *out.DirectoryId
}

func (w *world) await(id string, stage dstypes.DirectoryStage) {
	w.Helper()
	for range 500 {
		d, ok := w.service.Directory(w.store.Snapshot(), w.account, w.region, id)
		if !ok && stage == dstypes.DirectoryStageDeleted || d.Stage == string(stage) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	d, ok := w.service.Directory(w.store.Snapshot(), w.account, w.region, id)
	w.Fatalf("directory %s is %+v (%v), want %s", id, d, ok, stage)
}

func (w *world) user(dir, name string) string {
	w.Helper()
	return *must[dsdata.CreateUserOutput](w, "ds-data:CreateUser", &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: &name}).SID
}

func TestDirectoryLife(t *testing.T) {
	w := open(t)
	out := must[ds.CreateDirectoryOutput](w, "ds:CreateDirectory", &ds.CreateDirectoryInput{Name: aws.String("corp.example.com"), ShortName: aws.String("CORP"),
		Password: aws.String(goodPassword), Size: dstypes.DirectorySizeSmall, Description: aws.String("the office"), Tags: []dstypes.Tag{{Key: aws.String("a"), Value: aws.String("b")}},
		VpcSettings: &dstypes.DirectoryVpcSettings{VpcId: aws.String("vpc-1"), SubnetIds: []string{"subnet-1", "subnet-2"}}})
	id := *out.DirectoryId
	if !regexp.MustCompile(`^d-[0-9a-f]{10}$`).MatchString(id) {
		t.Errorf("directory ID %s", id)
	}
	w.await(id, dstypes.DirectoryStageActive)
	d := must[ds.DescribeDirectoriesOutput](w, "ds:DescribeDirectories", &ds.DescribeDirectoriesInput{DirectoryIds: []string{id}}).DirectoryDescriptions[0]
	if *d.Name != "corp.example.com" || *d.ShortName != "CORP" || d.Size != "Small" || d.Type != "SimpleAD" || d.Stage != "Active" || *d.Alias != id || *d.AccessUrl != id+".awsapps.com" ||
		len(d.DnsIpAddrs) != 2 || *d.VpcSettings.VpcId != "vpc-1" || len(d.VpcSettings.SubnetIds) != 2 || len(d.VpcSettings.AvailabilityZones) != 2 || d.StageLastUpdatedDateTime == nil || *d.Description != "the office" {
		t.Errorf("DescribeDirectories = %+v", d)
	}
	must[ds.CreateAliasOutput](w, "ds:CreateAlias", &ds.CreateAliasInput{DirectoryId: &id, Alias: aws.String("Office")})
	refused(w, "InvalidParameterException", "ds:CreateAlias", &ds.CreateAliasInput{DirectoryId: &id, Alias: aws.String("other")})
	other := w.directory()
	refused(w, "EntityAlreadyExistsException", "ds:CreateAlias", &ds.CreateAliasInput{DirectoryId: &other, Alias: aws.String("office")})
	refused(w, "InvalidParameterException", "ds:CreateAlias", &ds.CreateAliasInput{DirectoryId: &other, Alias: aws.String("d-office")})
	if v, ok := w.service.Find(w.store.Snapshot(), "OFFICE"); !ok || v.ID != id {
		t.Errorf("Find by alias = %+v, %v; want %s", v, ok, id)
	}
	w.user(id, "jane")
	w.registered[w.account+w.region+id] = true
	refused(w, "ClientException", "ds:DeleteDirectory", &ds.DeleteDirectoryInput{DirectoryId: &id})
	w.registered = map[string]bool{}
	must[ds.DeleteDirectoryOutput](w, "ds:DeleteDirectory", &ds.DeleteDirectoryInput{DirectoryId: &id})
	w.await(id, dstypes.DirectoryStageDeleted)
	refused(w, "EntityDoesNotExistException", "ds:DescribeDirectories", &ds.DescribeDirectoriesInput{DirectoryIds: []string{id}})
	refused(w, "EntityDoesNotExistException", "ds:DeleteDirectory", &ds.DeleteDirectoryInput{DirectoryId: &id})
	must[ds.CreateAliasOutput](w, "ds:CreateAlias", &ds.CreateAliasInput{DirectoryId: &other, Alias: aws.String("office")})
	if _, ok := w.service.User(w.store.Snapshot(), w.account, w.region, id, "jane"); ok {
		t.Error("a user outlived the directory")
	}
}

func TestCreateDirectoryRefuses(t *testing.T) {
	w := open(t)
	good := func() *ds.CreateDirectoryInput {
		return &ds.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String(goodPassword), Size: dstypes.DirectorySizeSmall}
	}
	for name, change := range map[string]func(in *ds.CreateDirectoryInput){
		"no dot":          func(in *ds.CreateDirectoryInput) { in.Name = aws.String("corp") },
		"empty label":     func(in *ds.CreateDirectoryInput) { in.Name = aws.String("corp..com") },
		"short password":  func(in *ds.CreateDirectoryInput) { in.Password = aws.String("Ab1-") },
		"simple password": func(in *ds.CreateDirectoryInput) { in.Password = aws.String("abcdefgh12") },
		"own name":        func(in *ds.CreateDirectoryInput) { in.Password = aws.String("XadministratorX1") },
		"size":            func(in *ds.CreateDirectoryInput) { in.Size = "Medium" },
		"network":         func(in *ds.CreateDirectoryInput) { in.NetworkType = dstypes.NetworkTypeIpv6Only },
		"one subnet": func(in *ds.CreateDirectoryInput) {
			in.VpcSettings = &dstypes.DirectoryVpcSettings{VpcId: aws.String("v"), SubnetIds: []string{"s"}}
		},
		"short name": func(in *ds.CreateDirectoryInput) { in.ShortName = aws.String("a.b") },
		"tag": func(in *ds.CreateDirectoryInput) {
			in.Tags = []dstypes.Tag{{Key: aws.String("aws:x"), Value: aws.String("")}}
		},
	} {
		in := good()
		change(in)
		t.Run(name, func(*testing.T) { refused(w, "InvalidParameterException", "ds:CreateDirectory", in) })
	}
	for range 10 {
		must[ds.CreateDirectoryOutput](w, "ds:CreateDirectory", good())
	}
	refused(w, "DirectoryLimitExceededException", "ds:CreateDirectory", good())
	l := must[ds.GetDirectoryLimitsOutput](w, "ds:GetDirectoryLimits", &ds.GetDirectoryLimitsInput{}).DirectoryLimits
	if *l.CloudOnlyDirectoriesCurrentCount != 10 || !l.CloudOnlyDirectoriesLimitReached {
		t.Errorf("limits %+v", l)
	}
	w.region = "eu-west-1"
	must[ds.CreateDirectoryOutput](w, "ds:CreateDirectory", good())
}

func TestDirectoriesArePagedAndApart(t *testing.T) {
	w := open(t)
	var want []string
	for range 5 {
		want = append(want, w.directory())
	}
	slices.Sort(want)
	var got []string
	in := &ds.DescribeDirectoriesInput{Limit: aws.Int32(2)}
	for {
		out := must[ds.DescribeDirectoriesOutput](w, "ds:DescribeDirectories", in)
		for _, d := range out.DirectoryDescriptions {
			got = append(got, *d.DirectoryId)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages give %v, want %v", got, want)
	}
	refused(w, "InvalidNextTokenException", "ds:DescribeDirectories", &ds.DescribeDirectoriesInput{NextToken: aws.String("nonsense")})
	for _, apart := range []func(){func() { w.region = "eu-west-1" }, func() { w.account = "999999999999" }} {
		apart()
		if out := must[ds.DescribeDirectoriesOutput](w, "ds:DescribeDirectories", &ds.DescribeDirectoriesInput{}); len(out.DirectoryDescriptions) != 0 {
			t.Errorf("%s in %s sees %d directories of another", w.account, w.region, len(out.DirectoryDescriptions))
		}
		refused(w, "EntityDoesNotExistException", "ds:DeleteDirectory", &ds.DeleteDirectoryInput{DirectoryId: &want[0]})
		refused(w, "ResourceNotFoundException", "ds-data:ListUsers", &dsdata.ListUsersInput{DirectoryId: &want[0]})
	}
}

// A relative ID belongs to one object for ever.
func TestSIDsAreNeverReused(t *testing.T) {
	w := open(t)
	dir := w.directory()
	d, _ := w.service.Directory(w.store.Snapshot(), w.account, w.region, dir)
	if !regexp.MustCompile(`^S-1-5-21-\d+-\d+-\d+$`).MatchString(d.DomainSID) {
		t.Fatalf("domain SID %s", d.DomainSID)
	}
	admin, ok := w.service.User(w.store.Snapshot(), w.account, w.region, dir, "ADMINISTRATOR")
	if !ok || admin.SID != d.DomainSID+"-500" {
		t.Errorf("administrator %+v, want SID %s-500", admin, d.DomainSID)
	}
	first := w.user(dir, "jane")
	if first != d.DomainSID+"-1103" {
		t.Errorf("first user has SID %s, want %s-1103", first, d.DomainSID)
	}
	must[dsdata.DeleteUserOutput](w, "ds-data:DeleteUser", &dsdata.DeleteUserInput{DirectoryId: &dir, SAMAccountName: aws.String("JANE")})
	if again := w.user(dir, "jane"); again != d.DomainSID+"-1104" {
		t.Errorf("a new user of the same name has SID %s, want %s-1104", again, d.DomainSID)
	}
	g := must[dsdata.CreateGroupOutput](w, "ds-data:CreateGroup", &dsdata.CreateGroupInput{DirectoryId: &dir, SAMAccountName: aws.String("Desktop Users")})
	if *g.SID != d.DomainSID+"-1105" {
		t.Errorf("group has SID %s, want %s-1105", *g.SID, d.DomainSID)
	}
	if other, _ := w.service.Directory(w.store.Snapshot(), w.account, w.region, w.directory()); other.DomainSID == d.DomainSID {
		t.Error("two directories have one domain SID")
	}
}

func TestUsers(t *testing.T) {
	w := open(t)
	dir := w.directory()
	in := &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: aws.String("Jane.Doe"), GivenName: aws.String("Jane"), Surname: aws.String("Doe"), EmailAddress: aws.String("jane@example.com"),
		OtherAttributes: map[string]dsdata.AttributeValue{"Department": &dsdata.AttributeValueMemberS{Value: "Sales"}, "otherTelephone": &dsdata.AttributeValueMemberSS{Value: []string{"1", "2"}},
			"uidNumber": &dsdata.AttributeValueMemberN{Value: 1007}}}
	must[dsdata.CreateUserOutput](w, "ds-data:CreateUser", in)
	out := must[dsdata.DescribeUserOutput](w, "ds-data:DescribeUser", &dsdata.DescribeUserInput{DirectoryId: &dir, SAMAccountName: aws.String("jane.doe"), OtherAttributes: []string{"department", "uidnumber", "otherTelephone", "title", "objectSid"}})
	if *out.SAMAccountName != "Jane.Doe" || *out.GivenName != "Jane" || !*out.Enabled || *out.UserPrincipalName != "Jane.Doe@corp.example.com" ||
		*out.DistinguishedName != "CN=Jane.Doe,CN=Users,DC=corp,DC=example,DC=com" || *out.Realm != "corp.example.com" || len(out.OtherAttributes) != 4 {
		t.Errorf("DescribeUser = %+v", out)
	}
	if v := out.OtherAttributes["department"].(*dsdata.AttributeValueMemberS); v.Value != "Sales" {
		t.Errorf("department = %v, want Sales", v)
	}
	if u, ok := w.service.User(w.store.Snapshot(), w.account, w.region, dir, "JANE.DOE"); !ok || u.DisplayName != "Jane Doe" || u.SAMAccountName != "Jane.Doe" || u.SID != *out.SID {
		t.Errorf("User = %+v, %v", u, ok)
	}
	refused(w, "ConflictException", "ds-data:CreateUser", &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: aws.String("JANE.DOE")})
	refused(w, "ConflictException", "ds-data:CreateGroup", &dsdata.CreateGroupInput{DirectoryId: &dir, SAMAccountName: aws.String("jane.doe")})
	for _, name := range []string{"", ".", "x.", "a b", "a/b", "abcdefghijklmnopqrstu", "é"} {
		refused(w, "ValidationException", "ds-data:CreateUser", &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: &name})
	}
	for attr, v := range map[string]dsdata.AttributeValue{"nonsense": &dsdata.AttributeValueMemberS{Value: "x"}, "objectSid": &dsdata.AttributeValueMemberS{Value: "S-1"}, "managedBy": &dsdata.AttributeValueMemberS{Value: "x"},
		"uidNumber": &dsdata.AttributeValueMemberS{Value: "x"}, "givenName": &dsdata.AttributeValueMemberS{Value: "x"}} {
		refused(w, "ValidationException", "ds-data:CreateUser", &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: aws.String("bob"), OtherAttributes: map[string]dsdata.AttributeValue{attr: v}})
	}
	update := func(how dsdata.UpdateType, attr string, v dsdata.AttributeValue) *dsdata.UpdateUserInput {
		return &dsdata.UpdateUserInput{DirectoryId: &dir, SAMAccountName: aws.String("jane.doe"), UpdateType: how, OtherAttributes: map[string]dsdata.AttributeValue{attr: v}}
	}
	s := func(v string) dsdata.AttributeValue { return &dsdata.AttributeValueMemberS{Value: v} }
	refused(w, "ValidationException", "ds-data:UpdateUser", update("ADD", "department", s("IT")))
	must[dsdata.UpdateUserOutput](w, "ds-data:UpdateUser", update("REPLACE", "department", s("IT")))
	must[dsdata.UpdateUserOutput](w, "ds-data:UpdateUser", update("ADD", "otherTelephone", &dsdata.AttributeValueMemberSS{Value: []string{"3"}}))
	must[dsdata.UpdateUserOutput](w, "ds-data:UpdateUser", update("REMOVE", "otherTelephone", &dsdata.AttributeValueMemberSS{Value: []string{"1"}}))
	must[dsdata.UpdateUserOutput](w, "ds-data:UpdateUser", update("REMOVE", "uidNumber", nil))
	refused(w, "ValidationException", "ds-data:UpdateUser", update("REMOVE", "uidNumber", nil))
	out = must[dsdata.DescribeUserOutput](w, "ds-data:DescribeUser", &dsdata.DescribeUserInput{DirectoryId: &dir, SAMAccountName: aws.String("jane.doe"), OtherAttributes: []string{"department", "uidNumber", "otherTelephone"}})
	if got := fmt.Sprint(out.OtherAttributes["department"].(*dsdata.AttributeValueMemberS).Value, out.OtherAttributes["otherTelephone"].(*dsdata.AttributeValueMemberSS).Value, len(out.OtherAttributes)); got != "IT[2 3] 2" {
		t.Errorf("after the updates %s, want IT[2 3] 2", got)
	}
	must[dsdata.DisableUserOutput](w, "ds-data:DisableUser", &dsdata.DisableUserInput{DirectoryId: &dir, SAMAccountName: aws.String("jane.doe")})
	if u, _ := w.service.User(w.store.Snapshot(), w.account, w.region, dir, "jane.doe"); u.Enabled {
		t.Error("a disabled user is enabled")
	}
	refused(w, "ResourceNotFoundException", "ds-data:DescribeUser", &dsdata.DescribeUserInput{DirectoryId: &dir, SAMAccountName: aws.String("nobody")})
	refused(w, "ResourceNotFoundException", "ds-data:DescribeUser", &dsdata.DescribeUserInput{DirectoryId: &dir, SAMAccountName: aws.String("Domain Users")})
	refused(w, "AccessDeniedException", "ds-data:DeleteUser", &dsdata.DeleteUserInput{DirectoryId: &dir, SAMAccountName: aws.String("administrator")})
	refused(w, "ValidationException", "ds-data:ListUsers", &dsdata.ListUsersInput{DirectoryId: &dir, Realm: aws.String("other.example.com")})
}

func TestListsAndSearches(t *testing.T) {
	w := open(t)
	dir := w.directory()
	for i := range 7 {
		name := fmt.Sprintf("user%d", i)
		must[dsdata.CreateUserOutput](w, "ds-data:CreateUser", &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: &name, Surname: aws.String([]string{"Smith", "Jones"}[i%2])})
	}
	var got []string
	in := &dsdata.ListUsersInput{DirectoryId: &dir, MaxResults: aws.Int32(3)}
	for pages := 0; ; pages++ {
		out := must[dsdata.ListUsersOutput](w, "ds-data:ListUsers", in)
		for _, u := range out.Users {
			got = append(got, *u.SAMAccountName)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if want := "Administrator user0 user1 user2 user3 user4 user5 user6"; strings.Join(got, " ") != want {
		t.Errorf("ListUsers in pages = %v, want %s", got, want)
	}
	for _, c := range []struct {
		attrs []string
		text  string
		want  int
	}{{[]string{"Surname"}, "smi", 4}, {[]string{"SAMAccountName"}, "USER", 7}, {[]string{"sn", "samaccountname"}, "jones", 3}, {[]string{"department"}, "x", 0}} {
		out := must[dsdata.SearchUsersOutput](w, "ds-data:SearchUsers", &dsdata.SearchUsersInput{DirectoryId: &dir, SearchAttributes: c.attrs, SearchString: &c.text})
		if len(out.Users) != c.want {
			t.Errorf("SearchUsers(%v, %s) found %d, want %d", c.attrs, c.text, len(out.Users), c.want)
		}
	}
	refused(w, "ValidationException", "ds-data:SearchUsers", &dsdata.SearchUsersInput{DirectoryId: &dir, SearchAttributes: []string{"sn"}, SearchString: aws.String("s*")})
	refused(w, "ValidationException", "ds-data:SearchUsers", &dsdata.SearchUsersInput{DirectoryId: &dir, SearchAttributes: []string{"objectSid"}, SearchString: aws.String("S")})
	refused(w, "ValidationException", "ds-data:ListUsers", &dsdata.ListUsersInput{DirectoryId: &dir, NextToken: aws.String("x")})
	page := must[dsdata.ListUsersOutput](w, "ds-data:ListUsers", &dsdata.ListUsersInput{DirectoryId: &dir, MaxResults: aws.Int32(1)})
	refused(w, "ValidationException", "ds-data:ListGroups", &dsdata.ListGroupsInput{DirectoryId: &dir, NextToken: page.NextToken})
}

func TestGroups(t *testing.T) {
	w := open(t)
	dir := w.directory()
	w.user(dir, "jane")
	w.user(dir, "bob")
	for _, g := range []string{"Desktop Users", "Everyone"} {
		must[dsdata.CreateGroupOutput](w, "ds-data:CreateGroup", &dsdata.CreateGroupInput{DirectoryId: &dir, SAMAccountName: &g})
	}
	add := func(g, m string) *dsdata.AddGroupMemberInput {
		return &dsdata.AddGroupMemberInput{DirectoryId: &dir, GroupName: &g, MemberName: &m}
	}
	must[dsdata.AddGroupMemberOutput](w, "ds-data:AddGroupMember", add("desktop users", "JANE"))
	must[dsdata.AddGroupMemberOutput](w, "ds-data:AddGroupMember", add("Desktop Users", "bob"))
	must[dsdata.AddGroupMemberOutput](w, "ds-data:AddGroupMember", add("everyone", "Desktop Users"))
	must[dsdata.AddGroupMemberOutput](w, "ds-data:AddGroupMember", add("everyone", "jane"))
	refused(w, "ConflictException", "ds-data:AddGroupMember", add("Desktop Users", "bob"))
	refused(w, "ValidationException", "ds-data:AddGroupMember", add("everyone", "everyone"))
	refused(w, "ResourceNotFoundException", "ds-data:AddGroupMember", add("everyone", "nobody"))
	refused(w, "ResourceNotFoundException", "ds-data:AddGroupMember", add("jane", "bob"))
	members := func(g string) string {
		var s []string
		for _, m := range must[dsdata.ListGroupMembersOutput](w, "ds-data:ListGroupMembers", &dsdata.ListGroupMembersInput{DirectoryId: &dir, SAMAccountName: &g}).Members {
			s = append(s, string(m.MemberType)+" "+*m.SAMAccountName)
		}
		return strings.Join(s, ", ")
	}
	groups := func(m string) string {
		var s []string
		for _, g := range must[dsdata.ListGroupsForMemberOutput](w, "ds-data:ListGroupsForMember", &dsdata.ListGroupsForMemberInput{DirectoryId: &dir, SAMAccountName: &m}).Groups {
			s = append(s, *g.SAMAccountName)
		}
		return strings.Join(s, ", ")
	}
	if got := members("Desktop Users"); got != "USER bob, USER jane" {
		t.Errorf("members of Desktop Users = %s", got)
	}
	if got := members("everyone"); got != "GROUP Desktop Users, USER jane" {
		t.Errorf("members of Everyone = %s", got)
	}
	if got := groups("jane"); got != "Desktop Users, Everyone" {
		t.Errorf("groups of jane = %s", got)
	}
	must[dsdata.RemoveGroupMemberOutput](w, "ds-data:RemoveGroupMember", &dsdata.RemoveGroupMemberInput{DirectoryId: &dir, GroupName: aws.String("Everyone"), MemberName: aws.String("Jane")})
	refused(w, "ResourceNotFoundException", "ds-data:RemoveGroupMember", &dsdata.RemoveGroupMemberInput{DirectoryId: &dir, GroupName: aws.String("Everyone"), MemberName: aws.String("Jane")})
	must[dsdata.DeleteUserOutput](w, "ds-data:DeleteUser", &dsdata.DeleteUserInput{DirectoryId: &dir, SAMAccountName: aws.String("bob")})
	if got := members("Desktop Users"); got != "USER jane" {
		t.Errorf("members of Desktop Users after bob was deleted = %s", got)
	}
	must[dsdata.DeleteGroupOutput](w, "ds-data:DeleteGroup", &dsdata.DeleteGroupInput{DirectoryId: &dir, SAMAccountName: aws.String("Desktop Users")})
	if got := groups("jane") + members("everyone"); got != "" {
		t.Errorf("memberships after the group was deleted: %s", got)
	}
	refused(w, "AccessDeniedException", "ds-data:DeleteGroup", &dsdata.DeleteGroupInput{DirectoryId: &dir, SAMAccountName: aws.String("domain users")})
	refused(w, "ValidationException", "ds-data:UpdateGroup", &dsdata.UpdateGroupInput{DirectoryId: &dir, SAMAccountName: aws.String("everyone"), GroupScope: "DomainLocal"})
	must[dsdata.UpdateGroupOutput](w, "ds-data:UpdateGroup", &dsdata.UpdateGroupInput{DirectoryId: &dir, SAMAccountName: aws.String("everyone"), GroupScope: "Universal"})
}

func TestClientToken(t *testing.T) {
	w := open(t)
	dir := w.directory()
	in := &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: aws.String("jane"), ClientToken: aws.String("token-1")}
	a := must[dsdata.CreateUserOutput](w, "ds-data:CreateUser", in)
	b := must[dsdata.CreateUserOutput](w, "ds-data:CreateUser", in)
	if *a.SID != *b.SID {
		t.Errorf("the same call again made SID %s, want %s", *b.SID, *a.SID)
	}
	refused(w, "ConflictException", "ds-data:CreateUser", &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: aws.String("bob"), ClientToken: aws.String("token-1")})
	refused(w, "ConflictException", "ds-data:DeleteUser", &dsdata.DeleteUserInput{DirectoryId: &dir, SAMAccountName: aws.String("jane"), ClientToken: aws.String("token-1")})
	w.clock.Advance(8*time.Hour + time.Second)
	must[dsdata.CreateUserOutput](w, "ds-data:CreateUser", &dsdata.CreateUserInput{DirectoryId: &dir, SAMAccountName: aws.String("bob"), ClientToken: aws.String("token-1")})
}

func TestDataAccess(t *testing.T) {
	w := open(t)
	dir := w.directory()
	refused(w, "DirectoryInDesiredStateException", "ds:EnableDirectoryDataAccess", &ds.EnableDirectoryDataAccessInput{DirectoryId: &dir})
	must[ds.DisableDirectoryDataAccessOutput](w, "ds:DisableDirectoryDataAccess", &ds.DisableDirectoryDataAccessInput{DirectoryId: &dir})
	err := refused(w, "AccessDeniedException", "ds-data:ListUsers", &dsdata.ListUsersInput{DirectoryId: &dir})
	var denied *dsdata.AccessDeniedException
	if !errors.As(err, &denied) || denied.Reason != dsdata.AccessDeniedReasonDataDisabled {
		t.Errorf("reason %v, want DATA_DISABLED", err)
	}
	if out := must[ds.DescribeDirectoryDataAccessOutput](w, "ds:DescribeDirectoryDataAccess", &ds.DescribeDirectoryDataAccessInput{DirectoryId: &dir}); out.DataAccessStatus != "Disabled" {
		t.Errorf("status %s", out.DataAccessStatus)
	}
	must[ds.EnableDirectoryDataAccessOutput](w, "ds:EnableDirectoryDataAccess", &ds.EnableDirectoryDataAccessInput{DirectoryId: &dir})
	must[dsdata.ListUsersOutput](w, "ds-data:ListUsers", &dsdata.ListUsersInput{DirectoryId: &dir})
	refused(w, "DirectoryDoesNotExistException", "ds:EnableDirectoryDataAccess", &ds.EnableDirectoryDataAccessInput{DirectoryId: aws.String("d-0000000000")})
	// Each ds-data operation asks for both permissions on the directory.
	for name, op := range w.ops {
		if op.Service != "ds-data" {
			continue
		}
		if op.Targets == nil {
			t.Errorf("%s asks for no permission", name)
		}
	}
	c := &api.Call{Account: w.account, Region: w.region}
	targets, err := w.ops["ds-data:AddGroupMember"].Targets(context.Background(), w.store.Snapshot(), c, &dsdata.AddGroupMemberInput{DirectoryId: &dir, GroupName: aws.String("g"), MemberName: aws.String("m")})
	arn := "arn:aws:ds:us-west-2:111122223333:directory/" + dir
	if err != nil || len(targets) != 2 || targets[0].Action != "ds-data:AddGroupMember" || targets[1].Action != "ds:AccessDSData" || targets[0].ARN != arn || targets[1].ARN != arn ||
		targets[0].Keys["ds-data:MemberName"][0] != "m" || targets[0].Keys["ds-data:SAMAccountName"][0] != "g" {
		t.Errorf("AddGroupMember asks for %+v, %v", targets, err)
	}
}

func TestPasswords(t *testing.T) {
	ctx := context.Background()
	w := open(t)
	dir := w.directory()
	login := func(user, password string) error {
		_, err := w.service.Authenticate(ctx, dir, user, password)
		return err
	}
	if u, err := w.service.Authenticate(ctx, dir, "Administrator", goodPassword); err != nil || u.SAMAccountName != "Administrator" || u.DirectoryID != dir {
		t.Errorf("administrator with the password of CreateDirectory = %+v, %v", u, err)
	}
	w.user(dir, "jane")
	if err := login("jane", ""); !errors.Is(err, directory.ErrCredentials) {
		t.Errorf("a user without a password signs in: %v", err)
	}
	reset := func(user, password string) *ds.ResetUserPasswordInput {
		return &ds.ResetUserPasswordInput{DirectoryId: &dir, UserName: &user, NewPassword: &password}
	}
	for _, bad := range []string{"short1A", "alllowercase", "ALLUPPER123", "Jane-has-1-password", strings.Repeat("aA1", 30)} {
		refused(w, "InvalidPasswordException", "ds:ResetUserPassword", reset("jane", bad))
	}
	refused(w, "UserDoesNotExistException", "ds:ResetUserPassword", reset("nobody", goodPassword))
	refused(w, "UserDoesNotExistException", "ds:ResetUserPassword", reset("Domain Users", goodPassword))
	must[ds.ResetUserPasswordOutput](w, "ds:ResetUserPassword", reset("Jane", goodPassword))
	for _, name := range []string{"jane", "JANE", `CORP\jane`, "jane@corp.example.com", `corp.example.com\Jane`} {
		if err := login(name, goodPassword); err != nil {
			t.Errorf("sign in as %s: %v", name, err)
		}
	}
	for _, name := range []string{"", `OTHER\jane`, "jane@other.example.com", "nobody", "Domain Users"} {
		if err := login(name, goodPassword); !errors.Is(err, directory.ErrCredentials) {
			t.Errorf("sign in as %q = %v, want ErrCredentials", name, err)
		}
	}
	must[dsdata.DisableUserOutput](w, "ds-data:DisableUser", &dsdata.DisableUserInput{DirectoryId: &dir, SAMAccountName: aws.String("jane")})
	if err := login("jane", goodPassword); !errors.Is(err, directory.ErrDisabled) {
		t.Errorf("sign in as a disabled user = %v, want ErrDisabled", err)
	}
	if err := login("jane", "wrong"); !errors.Is(err, directory.ErrCredentials) {
		t.Errorf("a wrong password of a disabled user = %v, want ErrCredentials", err)
	}
	must[ds.ResetUserPasswordOutput](w, "ds:ResetUserPassword", reset("jane", "Another-Horse-8"))
	if err := login("jane", "Another-Horse-8"); err != nil {
		t.Errorf("ResetUserPassword enables a disabled user, but sign in = %v", err)
	}
	if err := login("jane", goodPassword); !errors.Is(err, directory.ErrCredentials) {
		t.Errorf("the old password = %v, want ErrCredentials", err)
	}
	for range 10 {
		_ = login("jane", "wrong")
	}
	if err := login("jane", "Another-Horse-8"); !errors.Is(err, directory.ErrLocked) {
		t.Errorf("after ten wrong passwords = %v, want ErrLocked", err)
	}
	w.clock.Advance(6 * time.Minute)
	if err := login("jane", "Another-Horse-8"); err != nil {
		t.Errorf("after the lock = %v", err)
	}
	// A user of the same name does not inherit the password.
	must[dsdata.DeleteUserOutput](w, "ds-data:DeleteUser", &dsdata.DeleteUserInput{DirectoryId: &dir, SAMAccountName: aws.String("jane")})
	w.user(dir, "jane")
	if err := login("jane", "Another-Horse-8"); !errors.Is(err, directory.ErrCredentials) {
		t.Errorf("a new user of the same name signs in with the old password: %v", err)
	}
}

func TestTags(t *testing.T) {
	w := open(t)
	dir := w.directory()
	var tags []dstypes.Tag
	for i := range 50 {
		tags = append(tags, dstypes.Tag{Key: aws.String(fmt.Sprintf("k%02d", i)), Value: aws.String("v")})
	}
	must[ds.AddTagsToResourceOutput](w, "ds:AddTagsToResource", &ds.AddTagsToResourceInput{ResourceId: &dir, Tags: tags})
	refused(w, "TagLimitExceededException", "ds:AddTagsToResource", &ds.AddTagsToResourceInput{ResourceId: &dir, Tags: []dstypes.Tag{{Key: aws.String("x"), Value: aws.String("")}}})
	must[ds.RemoveTagsFromResourceOutput](w, "ds:RemoveTagsFromResource", &ds.RemoveTagsFromResourceInput{ResourceId: &dir, TagKeys: []string{"k00", "k01"}})
	n := 0
	in := &ds.ListTagsForResourceInput{ResourceId: &dir, Limit: aws.Int32(20)}
	for {
		out := must[ds.ListTagsForResourceOutput](w, "ds:ListTagsForResource", in)
		n += len(out.Tags)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if n != 48 {
		t.Errorf("%d tags, want 48", n)
	}
	c := &api.Call{Account: w.account, Region: w.region}
	targets, err := w.ops["ds:DeleteDirectory"].Targets(context.Background(), w.store.Snapshot(), c, &ds.DeleteDirectoryInput{DirectoryId: &dir})
	if err != nil || targets[0].Keys["aws:ResourceTag/k07"][0] != "v" {
		t.Errorf("targets %+v, %v; want the directory's tags as condition keys", targets, err)
	}
}

func TestMicrosoftAD(t *testing.T) {
	w := open(t)
	out := must[ds.CreateMicrosoftADOutput](w, "ds:CreateMicrosoftAD", &ds.CreateMicrosoftADInput{Name: aws.String("corp.example.com"), Password: aws.String(goodPassword), Edition: dstypes.DirectoryEditionStandard,
		VpcSettings: &dstypes.DirectoryVpcSettings{VpcId: aws.String("vpc-1"), SubnetIds: []string{"subnet-1", "subnet-2"}}})
	id := *out.DirectoryId
	w.await(id, dstypes.DirectoryStageActive)
	d := must[ds.DescribeDirectoriesOutput](w, "ds:DescribeDirectories", &ds.DescribeDirectoriesInput{}).DirectoryDescriptions[0]
	if d.Type != "MicrosoftAD" || d.Edition != "Standard" || *d.ShortName != "CORP" || d.Size != "" {
		t.Errorf("DescribeDirectories = %+v", d)
	}
	if _, err := w.service.Authenticate(context.Background(), id, "admin", goodPassword); err != nil {
		t.Errorf("Admin cannot sign in: %v", err)
	}
	if sid := w.user(id, "jane"); !strings.HasSuffix(sid, "-1104") {
		t.Errorf("first user after Admin has %s, want RID 1104", sid)
	}
}
