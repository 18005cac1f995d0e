package workspaces

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// An image is the root volume of a WorkSpace, kept as a snapshot: bundles made of it
// launch desktops that begin with it. Homes are on user volumes and no part of it.
// As on AWS there is none of a WorkSpace whose root volume is encrypted ("Encrypted
// WorkSpaces", limitations): nobody is to read in another desktop what was sealed for
// one user. Desktops launched from an image can be encrypted.

// maxImages a region has of an account. Source: WorkSpaces quotas, "Images".
const maxImages = 40

// image is stored under account/region/wsi-….
type image struct {
	Account, Region, ID     string
	Name, Description       string
	State                   wstypes.WorkspaceImageState
	ErrorCode, ErrorMessage string `json:",omitempty"`
	Deleting                bool   `json:",omitempty"` // gone for callers; its snapshot is still to go
	SnapshotID              string
	RootGiB                 int
	From                    *imageSource `json:",omitempty"` // of a copy that is not made yet
	Shared                  []string     `json:",omitempty"` // accounts that may copy it
	Created                 time.Time
	Tags                    map[string]string
}

// imageSource is the snapshot that a copy is made of.
type imageSource struct{ Account, Region, SnapshotID string }

func (i *image) key() string { return key(i.Account, i.Region, i.ID) }

// onNewImage is the target of a creation, with the condition keys of its tags; whoever
// gives tags must be allowed workspaces:CreateTags as well. Source: WorkSpaces API
// reference, CreateWorkspaceImage, Tags.
func onNewImage(c *api.Call, t []api.Target, tags []wstypes.Tag) []api.Target {
	if len(tags) > 0 {
		t = append(t, api.Target{Action: name + ":CreateTags", ARN: resourceARN(c, "workspaceimage", "*"), Account: c.Account})
	}
	for n := range t {
		for _, tag := range tags {
			if t[n].Keys == nil {
				t[n].Keys = map[string][]string{}
			}
			t[n].Keys["aws:RequestTag/"+deref(tag.Key)] = []string{deref(tag.Value)}
			t[n].Keys["aws:TagKeys"] = append(t[n].Keys["aws:TagKeys"], deref(tag.Key))
		}
	}
	return t
}

func (s *Service) imageOperations() []api.Operation {
	onImage := func(id func(any) *string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, _ *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return s.targets(c, "workspaceimage", []string{deref(id(in))}), nil
			}
		}
	}
	return []api.Operation{
		api.NewUpdate(name, "CreateWorkspaceImage", s.createImage, api.On(on(func(c *api.Call, in *workspaces.CreateWorkspaceImageInput) []api.Target {
			return onNewImage(c, s.targets(c, "workspace", []string{deref(in.WorkspaceId)}), in.Tags)
		}))),
		api.NewUpdate(name, "CopyWorkspaceImage", s.copyImage, api.On(on(func(c *api.Call, in *workspaces.CopyWorkspaceImageInput) []api.Target {
			return onNewImage(c, s.targets(c, "workspaceimage", []string{deref(in.SourceImageId)}), in.Tags)
		}))),
		api.NewView(name, "DescribeWorkspaceImages", s.describeImages),
		api.NewUpdate(name, "DeleteWorkspaceImage", s.deleteImage, onImage(func(in any) *string { return in.(*workspaces.DeleteWorkspaceImageInput).ImageId })),
		api.NewView(name, "DescribeWorkspaceImagePermissions", s.describeImagePermissions, onImage(func(in any) *string { return in.(*workspaces.DescribeWorkspaceImagePermissionsInput).ImageId })),
		api.NewUpdate(name, "UpdateWorkspaceImagePermission", s.updateImagePermission, onImage(func(in any) *string { return in.(*workspaces.UpdateWorkspaceImagePermissionInput).ImageId })),
	}
}

// imageOf finds an image of the caller's own, nil when there is none.
func (s *Service) imageOf(tx *store.Tx, c *api.Call, id string) *image {
	if i := s.images.Get(tx, key(c.Account, c.Region, id)); i != nil && !i.Deleting {
		return i
	}
	return nil
}

// bundleImage checks that a bundle can be made of an image, and tells the least size of its root volume.
func (s *Service) bundleImage(tx *store.Tx, c *api.Call, id string) (leastGiB int, err error) {
	if id == imageID {
		return 8, nil
	}
	i := s.imageOf(tx, c, id)
	if i == nil {
		return 0, notFound("image", id)
	}
	if i.State != wstypes.WorkspaceImageStateAvailable {
		m := "The image " + id + " is " + string(i.State) + "; it must be AVAILABLE."
		return 0, &wstypes.ResourceUnavailableException{Message: &m, ResourceId: &id}
	}
	return i.RootGiB, nil
}

// newImage makes the record of an image, unless its name is taken.
func (s *Service) newImage(tx *store.Tx, c *api.Call, imageName, description string, tags []wstypes.Tag) (*image, error) {
	taken, n := false, 0
	s.images.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, i *image) bool {
		if !i.Deleting {
			n++
			taken = taken || i.Name == imageName
		}
		return true
	})
	switch {
	case taken:
		m := "An image named " + imageName + " exists already."
		return nil, &wstypes.ResourceAlreadyExistsException{Message: &m}
	case n >= maxImages:
		m := "A region has at most 40 images."
		return nil, &wstypes.ResourceLimitExceededException{Message: &m}
	}
	m, err := tagMap(tags)
	if err != nil {
		return nil, err
	}
	return &image{Account: c.Account, Region: c.Region, ID: ids.WorkSpace("wsi"), Name: imageName, Description: description, State: wstypes.WorkspaceImageStatePending, Created: c.Time, Tags: m}, nil
}

// createImage asks for an image of a WorkSpace, which is SUSPENDED meanwhile: it is
// powered off, so that the image is a file system at rest, and comes up again.
func (s *Service) createImage(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.CreateWorkspaceImageInput) (*workspaces.CreateWorkspaceImageOutput, error) {
	id := deref(in.WorkspaceId)
	w := s.workspaces.Edit(tx, key(c.Account, c.Region, id))
	switch {
	case w == nil:
		return nil, notFound("WorkSpace", id)
	case w.EncryptRoot:
		return nil, notAvailable("The root volume of the WorkSpace " + id + " is encrypted: creating an image of an encrypted WorkSpace is not supported.")
	case w.State != available && w.State != stopped || w.Growth != nil && w.Growth.Failed == "":
		m := "The WorkSpace " + id + " is " + string(w.State) + "; an image needs one that is AVAILABLE or STOPPED, and whose volumes are not being modified."
		return nil, &wstypes.InvalidResourceStateException{Message: &m}
	}
	i, err := s.newImage(tx, c, deref(in.Name), deref(in.Description), in.Tags)
	if err != nil {
		return nil, err
	}
	i.RootGiB = w.RootGiB
	w.Task, w.ImageID, w.Stopped, w.Down, w.Attempts, w.NotBefore, w.Progress = taskImage, i.ID, w.State == stopped, false, 0, time.Time{}, ""
	w.setState(c.Time, suspended, "", "")
	if err := s.workspaces.Put(tx, w.key(), w); err != nil {
		return nil, err
	}
	o := i.show()
	return &workspaces.CreateWorkspaceImageOutput{ImageId: o.ImageId, Name: o.Name, Description: o.Description, State: o.State, Created: o.Created, OperatingSystem: o.OperatingSystem,
		OwnerAccountId: o.OwnerAccountId, RequiredTenancy: o.RequiredTenancy}, s.images.Put(tx, i.key(), i)
}

// copyImage asks for a copy of an image of the caller's own or one shared with it.
func (s *Service) copyImage(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.CopyWorkspaceImageInput) (*workspaces.CopyWorkspaceImageOutput, error) {
	id := deref(in.SourceImageId)
	var from *image
	s.images.Scan(tx, "", "", func(_ string, i *image) bool {
		if i.ID == id && i.Region == deref(in.SourceRegion) && !i.Deleting && (i.Account == c.Account || slices.Contains(i.Shared, c.Account)) {
			from = i
		}
		return from == nil
	})
	switch {
	case id == imageID:
		return nil, notAvailable("The image " + id + " is the same in every region and account; it needs no copy.")
	case from == nil:
		return nil, notFound("image", id)
	case from.State != wstypes.WorkspaceImageStateAvailable:
		m := "The image " + id + " is " + string(from.State) + "; it must be AVAILABLE."
		return nil, &wstypes.ResourceUnavailableException{Message: &m, ResourceId: &id}
	}
	description := from.Description
	setIf(&description, in.Description)
	i, err := s.newImage(tx, c, deref(in.Name), description, in.Tags)
	if err != nil {
		return nil, err
	}
	i.RootGiB, i.From = from.RootGiB, &imageSource{from.Account, from.Region, from.SnapshotID}
	return &workspaces.CopyWorkspaceImageOutput{ImageId: &i.ID}, s.images.Put(tx, i.key(), i)
}

func (i *image) show() wstypes.WorkspaceImage {
	return wstypes.WorkspaceImage{ImageId: &i.ID, Name: &i.Name, Description: &i.Description, State: i.State, Created: &i.Created, OwnerAccountId: &i.Account,
		ErrorCode: opt(i.ErrorCode), ErrorMessage: opt(i.ErrorMessage), OperatingSystem: &wstypes.OperatingSystem{Type: wstypes.OperatingSystemTypeLinux},
		RequiredTenancy: wstypes.WorkspaceImageRequiredTenancyDefault, Updates: &wstypes.UpdateResult{UpdateAvailable: aws.Bool(false)}}
}

// describeImages lists the image we provide and the account's own, or those that
// others share with it.
func (s *Service) describeImages(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeWorkspaceImagesInput) (*workspaces.DescribeWorkspaceImagesOutput, error) {
	after, err := untoken(in.NextToken)
	if err != nil {
		return nil, err
	}
	all := []wstypes.WorkspaceImage{}
	add := func(i wstypes.WorkspaceImage) {
		if len(in.ImageIds) == 0 || slices.Contains(in.ImageIds, *i.ImageId) {
			all = append(all, i)
		}
	}
	if in.ImageType != wstypes.ImageTypeShared {
		o := (&image{Account: owner, ID: imageID, Name: "Debian 12 desktop", Description: "Debian GNU/Linux 12 with a desktop session", State: wstypes.WorkspaceImageStateAvailable, Created: provided[0].Created}).show()
		add(o)
	}
	s.images.Scan(tx, "", "", func(_ string, i *image) bool {
		mine := i.Account == c.Account
		if i.Region != c.Region || i.Deleting || !mine && !slices.Contains(i.Shared, c.Account) || mine && in.ImageType == wstypes.ImageTypeShared ||
			!mine && in.ImageType != wstypes.ImageTypeShared && len(in.ImageIds) == 0 {
			return true
		}
		add(i.show())
		return true
	})
	slices.SortFunc(all, func(a, b wstypes.WorkspaceImage) int { return strings.Compare(*a.ImageId, *b.ImageId) })
	limit := int(aws.ToInt32(in.MaxResults))
	if limit == 0 {
		limit = pageSize
	}
	out := &workspaces.DescribeWorkspaceImagesOutput{Images: []wstypes.WorkspaceImage{}}
	for _, i := range all {
		if *i.ImageId <= after {
			continue
		}
		if len(out.Images) == limit {
			out.NextToken = token(*out.Images[limit-1].ImageId)
			break
		}
		out.Images = append(out.Images, i)
	}
	return out, nil
}

// deleteImage lets an image go that no bundle is made of and nobody else shares.
func (s *Service) deleteImage(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DeleteWorkspaceImageInput) (*workspaces.DeleteWorkspaceImageOutput, error) {
	id := deref(in.ImageId)
	i := s.imageOf(tx, c, id)
	if i == nil {
		return nil, notFound("image", id)
	}
	by := ""
	s.bundles.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, b *bundle) bool {
		if b.ImageID == id {
			by = b.ID
		}
		return by == ""
	})
	switch {
	case i.State == wstypes.WorkspaceImageStatePending:
		m := "The image " + id + " is still being created."
		return nil, &wstypes.InvalidResourceStateException{Message: &m}
	case by != "":
		m := "The image " + id + " is used by the bundle " + by + ". Delete the bundle first."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	case len(i.Shared) > 0:
		m := "The image " + id + " is shared with " + strings.Join(i.Shared, ", ") + ". Unshare it first."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	}
	e := s.images.Edit(tx, i.key())
	e.Deleting = true
	return &workspaces.DeleteWorkspaceImageOutput{}, s.images.Put(tx, e.key(), e)
}

func (s *Service) describeImagePermissions(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeWorkspaceImagePermissionsInput) (*workspaces.DescribeWorkspaceImagePermissionsOutput, error) {
	after, err := untoken(in.NextToken)
	if err != nil {
		return nil, err
	}
	i := s.imageOf(tx, c, deref(in.ImageId))
	if i == nil {
		return nil, notFound("image", deref(in.ImageId))
	}
	limit := int(aws.ToInt32(in.MaxResults))
	if limit == 0 {
		limit = pageSize
	}
	out := &workspaces.DescribeWorkspaceImagePermissionsOutput{ImageId: &i.ID, ImagePermissions: []wstypes.ImagePermission{}}
	for _, account := range i.Shared {
		if account <= after {
			continue
		}
		if n := len(out.ImagePermissions); n == limit {
			out.NextToken = token(*out.ImagePermissions[n-1].SharedAccountId)
			break
		}
		out.ImagePermissions = append(out.ImagePermissions, wstypes.ImagePermission{SharedAccountId: &account})
	}
	return out, nil
}

// updateImagePermission lets another account copy an image, or no longer.
func (s *Service) updateImagePermission(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.UpdateWorkspaceImagePermissionInput) (*workspaces.UpdateWorkspaceImagePermissionOutput, error) {
	id, with := deref(in.ImageId), deref(in.SharedAccountId)
	i := s.imageOf(tx, c, id)
	switch {
	case i == nil:
		return nil, notFound("image", id)
	case with == c.Account:
		return nil, invalidValues("SharedAccountId " + with + " is the account that owns the image.")
	case i.State != wstypes.WorkspaceImageStateAvailable:
		m := "The image " + id + " is " + string(i.State) + "; it must be AVAILABLE."
		return nil, &wstypes.ResourceUnavailableException{Message: &m, ResourceId: &id}
	}
	e := s.images.Edit(tx, i.key())
	e.Shared = slices.DeleteFunc(e.Shared, func(a string) bool { return a == with })
	if aws.ToBool(in.AllowCopyImage) {
		e.Shared = append(e.Shared, with)
		slices.Sort(e.Shared)
	}
	return &workspaces.UpdateWorkspaceImagePermissionOutput{}, s.images.Put(tx, e.key(), e)
}

// makeImage is the task of a WorkSpace that an image is made of: power off, keep the
// root volume, power on again.
func (s *Service) makeImage(ctx context.Context, w *workspace) error {
	var err error
	if !w.Down {
		if err := s.down(ctx, w, s.cfg.StopGrace); err != nil {
			return err
		}
		if w, err = s.progress(ctx, w, "keeping the root volume as an image"); err != nil {
			return err
		}
		snapshot, err := s.cfg.Volumes.KeepImage(ctx, s.call(w), w.RootVolume, w.ImageID)
		if err != nil {
			return fmt.Errorf("keep the root volume %s as image %s: %w", w.RootVolume, w.ImageID, err)
		}
		err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			r, i := s.workspaces.Edit(tx, w.key()), s.images.Edit(tx, key(w.Account, w.Region, w.ImageID))
			if r == nil || i == nil || r.Task != taskImage || r.ImageID != w.ImageID {
				return errSuperseded
			}
			r.Down, w = true, r
			i.SnapshotID, i.State = snapshot, wstypes.WorkspaceImageStateAvailable
			if err := s.images.Put(tx, i.key(), i); err != nil {
				return err
			}
			return s.workspaces.Put(tx, r.key(), r)
		})
		if err != nil {
			return err
		}
	}
	if w.Stopped {
		_, err := s.done(ctx, w, stopped)
		return err
	}
	return s.up(ctx, w)
}

// failImage records that a WorkSpace's image will not come to be, unless it is there already.
func (s *Service) failImage(tx *store.Tx, w *workspace, why string) error {
	i := s.images.Edit(tx, key(w.Account, w.Region, w.ImageID))
	if i == nil || i.State != wstypes.WorkspaceImageStatePending {
		return nil
	}
	i.State, i.ErrorCode, i.ErrorMessage = wstypes.WorkspaceImageStateError, "ImageCreationFailed", why
	if w.ErrorMessage != "" {
		i.ErrorMessage += " " + w.ErrorMessage
	}
	return s.images.Put(tx, i.key(), i)
}

// imageUpkeep makes the copies that are asked for and removes what deleted images leave.
func (s *Service) imageUpkeep(ctx context.Context) {
	var todo []*image
	s.images.Scan(s.cfg.Store.Snapshot(), "", "", func(_ string, i *image) bool {
		if i.Deleting || i.From != nil && i.State == wstypes.WorkspaceImageStatePending {
			todo = append(todo, i)
		}
		return true
	})
	for _, i := range todo {
		c := api.ServiceCall(name, i.Account, i.Region, s.cfg.Clock.Now())
		c.SourceARN = resourceARN(c, "workspaceimage", i.ID)
		if i.Deleting {
			err := s.removeImage(ctx, c, i)
			if err != nil && ctx.Err() == nil {
				s.log.Warn("a deleted image is not removed yet", "image", i.ID, "err", err)
			}
			continue
		}
		snapshot, err := s.cfg.Volumes.CopyImage(ctx, c, i.From.Account, i.From.Region, i.From.SnapshotID, i.ID)
		if ctx.Err() != nil {
			return
		}
		recorded := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			e := s.images.Edit(tx, i.key())
			if e == nil {
				return nil
			}
			e.From = nil
			if err != nil {
				e.State = wstypes.WorkspaceImageStateError
				e.ErrorCode, e.ErrorMessage = reason(err)
			} else {
				e.SnapshotID, e.State = snapshot, wstypes.WorkspaceImageStateAvailable
			}
			return s.images.Put(tx, e.key(), e)
		})
		if err != nil || recorded != nil {
			s.log.Warn("an image is not copied", "image", i.ID, "err", err, "record", recorded)
		}
	}
}

func (s *Service) removeImage(ctx context.Context, c *api.Call, i *image) error {
	if i.SnapshotID != "" {
		if err := s.cfg.Volumes.DeleteImage(ctx, c, i.SnapshotID); err != nil {
			return err
		}
	}
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error { return s.images.Delete(tx, i.key()) })
}
