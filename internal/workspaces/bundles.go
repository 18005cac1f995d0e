package workspaces

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// owner of the bundles and images that we provide.
const owner = "AMAZON"

// imageID is the desktop image that every provided bundle starts from.
const imageID = "wsi-debian12x"

// size is what a compute type gives a desktop.
type size struct{ vcpus, memoryMiB int }

// machineSizes are AWS's vCPU and memory figures of each compute type.
// Source: WorkSpaces pricing page, "hardware".
var machineSizes = map[wstypes.Compute]size{
	wstypes.ComputeValue:       {1, 2048},
	wstypes.ComputeStandard:    {2, 4096},
	wstypes.ComputePerformance: {2, 8192},
	wstypes.ComputePower:       {4, 16384},
	wstypes.ComputePowerpro:    {8, 32768},
}

func availableComputeTypes() string {
	names := make([]string, 0, len(machineSizes))
	for n := range machineSizes {
		names = append(names, string(n))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

var provided = func() []*bundle {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var out []*bundle
	for _, b := range []struct {
		id, name string
		compute  wstypes.Compute
	}{{"wsb-value0001", "Value with Debian 12", wstypes.ComputeValue}, {"wsb-standard1", "Standard with Debian 12", wstypes.ComputeStandard},
		{"wsb-perform01", "Performance with Debian 12", wstypes.ComputePerformance}, {"wsb-power0001", "Power with Debian 12", wstypes.ComputePower}} {
		sz := machineSizes[b.compute]
		out = append(out, &bundle{ID: b.id, Name: b.name, Owner: owner, Compute: b.compute, RootGiB: 80, UserGiB: 50, ImageID: imageID, Created: at, Updated: at,
			Description: strconv.Itoa(sz.vcpus) + " vCPU, " + strconv.Itoa(sz.memoryMiB/1024) + " GiB memory, 80 GiB root, 50 GiB user volume, Debian GNU/Linux 12 desktop"})
	}
	return out
}()

// bundle finds one we provide or one of the account's; nil when there is none.
func (s *Service) bundle(tx *store.Tx, c *api.Call, id string) *bundle {
	for _, b := range provided {
		if b.ID == id {
			return b
		}
	}
	return s.bundles.Get(tx, key(c.Account, c.Region, id))
}

func (s *Service) bundleOperations() []api.Operation {
	onBundle := func(id func(any) *string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, _ *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return s.targets(c, "workspacebundle", []string{deref(id(in))}), nil
			}
		}
	}
	return []api.Operation{
		api.NewView(name, "DescribeWorkspaceBundles", s.describeBundles),
		api.NewUpdate(name, "CreateWorkspaceBundle", s.createBundle),
		api.NewUpdate(name, "UpdateWorkspaceBundle", s.updateBundle, onBundle(func(in any) *string { return in.(*workspaces.UpdateWorkspaceBundleInput).BundleId })),
		api.NewUpdate(name, "DeleteWorkspaceBundle", s.deleteBundle, onBundle(func(in any) *string { return in.(*workspaces.DeleteWorkspaceBundleInput).BundleId })),
	}
}

func showBundle(b *bundle, account string) wstypes.WorkspaceBundle {
	o := b.Owner
	if o == "" {
		o = account
	}
	root, user := strconv.Itoa(b.RootGiB), strconv.Itoa(b.UserGiB)
	return wstypes.WorkspaceBundle{BundleId: &b.ID, Name: &b.Name, Description: &b.Description, Owner: &o, ImageId: &b.ImageID,
		ComputeType: &wstypes.ComputeType{Name: b.Compute}, RootStorage: &wstypes.RootStorage{Capacity: &root}, UserStorage: &wstypes.UserStorage{Capacity: &user},
		CreationTime: &b.Created, LastUpdatedTime: &b.Updated, State: wstypes.WorkspaceBundleStateAvailable, BundleType: wstypes.BundleTypeRegular}
}

// describeBundles: by IDs, or of an owner; Owner AMAZON lists those we provide,
// no owner the account's own.
func (s *Service) describeBundles(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeWorkspaceBundlesInput) (*workspaces.DescribeWorkspaceBundlesOutput, error) {
	if len(in.BundleIds) > 0 && in.Owner != nil {
		return nil, invalidValues("BundleIds and Owner cannot be combined.")
	}
	after, err := untoken(in.NextToken)
	if err != nil {
		return nil, err
	}
	var all []*bundle
	switch {
	case len(in.BundleIds) > 0:
		for _, id := range in.BundleIds {
			if b := s.bundle(tx, c, id); b != nil {
				all = append(all, b)
			}
		}
	case deref(in.Owner) == owner:
		all = provided
	case in.Owner == nil || *in.Owner == c.Account:
		s.bundles.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, b *bundle) bool {
			all = append(all, b)
			return true
		})
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *bundle) int { return strings.Compare(a.ID, b.ID) })
	out := &workspaces.DescribeWorkspaceBundlesOutput{Bundles: []wstypes.WorkspaceBundle{}}
	for _, b := range all {
		if b.ID <= after {
			continue
		}
		if len(out.Bundles) == pageSize {
			out.NextToken = token(*out.Bundles[pageSize-1].BundleId)
			break
		}
		out.Bundles = append(out.Bundles, showBundle(b, c.Account))
	}
	return out, nil
}

func gib(s *string, what string, min int) (int, error) {
	n, err := strconv.Atoi(deref(s))
	if err != nil || n < min || n > 2000 {
		return 0, invalidValues(what + " capacity " + strconv.Quote(deref(s)) + ": want a number of GiB from " + strconv.Itoa(min) + " to 2000.")
	}
	return n, nil
}

// createBundle makes a custom bundle: other sizes of the image we provide, or one of
// the account's own images.
func (s *Service) createBundle(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.CreateWorkspaceBundleInput) (*workspaces.CreateWorkspaceBundleOutput, error) {
	least, err := s.bundleImage(tx, c, deref(in.ImageId))
	if err != nil {
		return nil, err
	}
	if in.ComputeType == nil || machineSizes[in.ComputeType.Name] == (size{}) {
		return nil, invalidValues("ComputeType: want one of " + availableComputeTypes() + ".")
	}
	user, err := gib(in.UserStorage.Capacity, "UserStorage", 1)
	if err != nil {
		return nil, err
	}
	root := max(provided[0].RootGiB, least)
	if in.RootStorage != nil {
		if root, err = gib(in.RootStorage.Capacity, "RootStorage", least); err != nil {
			return nil, err
		}
	}
	taken := false
	s.bundles.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, b *bundle) bool {
		taken = taken || b.Name == deref(in.BundleName)
		return !taken
	})
	if taken {
		m := "A bundle named " + deref(in.BundleName) + " exists already."
		return nil, &wstypes.ResourceAlreadyExistsException{Message: &m}
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	b := &bundle{ID: ids.WorkSpace("wsb"), Name: deref(in.BundleName), Description: deref(in.BundleDescription), Compute: in.ComputeType.Name,
		RootGiB: root, UserGiB: user, ImageID: *in.ImageId, Created: c.Time, Updated: c.Time, Tags: tags}
	shown := showBundle(b, c.Account)
	return &workspaces.CreateWorkspaceBundleOutput{WorkspaceBundle: &shown}, s.bundles.Put(tx, key(c.Account, c.Region, b.ID), b)
}

func (s *Service) updateBundle(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.UpdateWorkspaceBundleInput) (*workspaces.UpdateWorkspaceBundleOutput, error) {
	k := key(c.Account, c.Region, deref(in.BundleId))
	b := s.bundles.Edit(tx, k)
	if b == nil {
		return nil, notFound("bundle", deref(in.BundleId))
	}
	if in.ImageId != nil {
		least, err := s.bundleImage(tx, c, *in.ImageId)
		if err != nil {
			return nil, err
		}
		if b.RootGiB < least {
			return nil, invalidValues(fmt.Sprintf("The image %s needs a root volume of %d GiB; the bundle's has %d.", *in.ImageId, least, b.RootGiB))
		}
		b.ImageID = *in.ImageId
	}
	b.Updated = c.Time
	return &workspaces.UpdateWorkspaceBundleOutput{}, s.bundles.Put(tx, k, b)
}

func (s *Service) deleteBundle(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DeleteWorkspaceBundleInput) (*workspaces.DeleteWorkspaceBundleOutput, error) {
	id := deref(in.BundleId)
	k := key(c.Account, c.Region, id)
	if s.bundles.Get(tx, k) == nil {
		return nil, notFound("bundle", id)
	}
	used := false
	s.workspaces.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, w *workspace) bool {
		used = used || w.BundleID == id
		return !used
	})
	if used {
		m := "WorkSpaces still use the bundle " + id + "."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	}
	return &workspaces.DeleteWorkspaceBundleOutput{}, s.bundles.Delete(tx, k)
}
