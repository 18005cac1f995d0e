package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
	dsclient "github.com/sealdesk/sealdesk/internal/wire/dsdata/client"
)

// guest is the boot sector of a bundle image whose desktop is there at once: it says
// so on its second serial port, reads its disk for ever, and powers off when asked to.
//
//	7c00  xor ax,ax / mov ds,ax / mov es,ax / mov ss,ax / mov sp,7c00 / sti / cld
//	7c0d  mov [7d00],dl                                       drive the firmware booted from
//	7c11  mov dx,0602 / mov ax,0100 / out dx,ax               ACPI: tell me of the power button
//	7c18  mov si,7c80
//	7c1b  lodsb / or al,al / jz 7c32                          next character of the message
//	      mov ah,al / mov dx,02fd / in al,dx / test al,20 / jz -5   wait until the port takes it
//	      mov al,ah / mov dx,02f8 / out dx,al / jmp 7c1b
//	7c32  mov si,7cd0 / mov ah,42 / mov dl,[7d00] / int 13    read sector 8
//	7c3d  mov dx,0600 / in ax,dx / test ah,01 / jz +7         power button?
//	      mov dx,0604 / mov ax,2000 / out dx,ax               power off
//	7c4d  hlt / hlt / hlt / jmp 7c18                          three ticks of the clock
func guest() []byte {
	s := make([]byte, 512)
	copy(s, []byte{
		0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb, 0xfc,
		0x88, 0x16, 0x00, 0x7d,
		0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef,
		0xbe, 0x80, 0x7c,
		0xac, 0x08, 0xc0, 0x74, 0x12,
		0x88, 0xc4, 0xba, 0xfd, 0x02, 0xec, 0xa8, 0x20, 0x74, 0xfb,
		0x88, 0xe0, 0xba, 0xf8, 0x02, 0xee, 0xeb, 0xe9,
		0xbe, 0xd0, 0x7c, 0xb4, 0x42, 0x8a, 0x16, 0x00, 0x7d, 0xcd, 0x13,
		0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0x07, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef,
		0xf4, 0xf4, 0xf4, 0xeb, 0xc6,
	})
	copy(s[0x80:], `{"v":1,"state":"desktop-ready","boot":"1"}`+"\n\x00")
	copy(s[0xd0:], []byte{0x10, 0, 1, 0, 0x00, 0x80, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}) // disk address packet: 1 sector, to 0:8000, from LBA 8
	s[510], s[511] = 0x55, 0xaa
	return s
}

// tinyDesktops makes an image of the guest, and a qemu-system-x86_64 in front of
// the real one in PATH that gives it the agent channel as a serial port, for which
// a boot sector needs no driver. It returns the environment and arguments of a server.
func tinyDesktops(t *testing.T) (env, args []string) {
	t.Helper()
	needs(t, "qemu-system-x86_64")
	real, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "tiny.raw")
	if err := os.WriteFile(image, append(guest(), bytes.Repeat([]byte("not to be seen on the host\n"), 30_000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 1<<20); err != nil {
		t.Fatal(err)
	}
	script := `#!/bin/bash
args=()
for a in "$@"; do
  case $a in virtserialport,chardev=agent,*) a=isa-serial,chardev=agent,index=1 ;; esac
  args+=("$a")
done
exec ` + real + ` "${args[@]}"
`
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + dir + ":" + os.Getenv("PATH")}, []string{"--image", image}
}

// farm is a server with a directory of two users and a key.
type farm struct {
	*server
	directory, key string
}

func newFarm(t *testing.T) *farm {
	env, args := tinyDesktops(t)
	f := &farm{server: newServer(t, env, args...)}
	d, err := directoryservice.NewFromConfig(f.config()).CreateDirectory(ctx, &directoryservice.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String("Adm1n-of-the-corp"), Size: "Small"})
	f.must(err)
	f.directory = *d.DirectoryId
	eventually(t, time.Minute, "the directory is Active", func() error {
		out, err := directoryservice.NewFromConfig(f.config()).DescribeDirectories(ctx, &directoryservice.DescribeDirectoriesInput{DirectoryIds: []string{f.directory}})
		if err == nil && out.DirectoryDescriptions[0].Stage != "Active" {
			err = errNotYet
		}
		return err
	})
	for _, user := range []string{"jane", "john"} {
		_, err := dsclient.NewFromConfig(f.config()).CreateUser(ctx, &dsdata.CreateUserInput{DirectoryId: &f.directory, SAMAccountName: &user})
		f.must(err)
	}
	_, err = workspaces.NewFromConfig(f.config()).RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &f.directory})
	f.must(err)
	k, err := kms.NewFromConfig(f.config()).CreateKey(ctx, &kms.CreateKeyInput{})
	f.must(err)
	f.key = *k.KeyMetadata.Arn
	return f
}

func (f *farm) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// launch asks for a desktop; the answer may be lost when the server is killed.
func (f *farm) launch(user string) (string, error) {
	out, err := workspaces.NewFromConfig(f.config()).CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: []wstypes.WorkspaceRequest{{
		DirectoryId: &f.directory, UserName: &user, BundleId: aws.String("wsb-standard1"), VolumeEncryptionKey: &f.key,
		RootVolumeEncryptionEnabled: aws.Bool(true), UserVolumeEncryptionEnabled: aws.Bool(true)}}})
	if err != nil {
		return "", err
	}
	if len(out.FailedRequests) > 0 {
		return "", fmt.Errorf("%s: %s", *out.FailedRequests[0].ErrorCode, *out.FailedRequests[0].ErrorMessage)
	}
	return *out.PendingRequests[0].WorkspaceId, nil
}

// of is the user's WorkSpace, nil when there is none.
func (f *farm) of(user string) (*wstypes.Workspace, error) {
	out, err := workspaces.NewFromConfig(f.config()).DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{DirectoryId: &f.directory, UserName: &user})
	if err != nil || len(out.Workspaces) == 0 {
		return nil, err
	}
	return &out.Workspaces[0], nil
}

func (f *farm) await(t *testing.T, user string, want wstypes.WorkspaceState) {
	t.Helper()
	eventually(t, 3*time.Minute, "the desktop of "+user+" is "+string(want), func() error {
		w, err := f.of(user)
		switch {
		case err != nil:
			return err
		case w == nil:
			return fmt.Errorf("there is none")
		case w.State != want:
			return fmt.Errorf("it is %s: %s", w.State, aws.ToString(w.ErrorMessage))
		}
		return nil
	})
}

func (f *farm) terminate(t *testing.T, user string) {
	t.Helper()
	w, err := f.of(user)
	f.must(err)
	if w == nil {
		return
	}
	_, err = workspaces.NewFromConfig(f.config()).TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: w.WorkspaceId}}})
	f.must(err)
	f.awaitGone(t, user)
}

func (f *farm) awaitGone(t *testing.T, user string) {
	t.Helper()
	eventually(t, 2*time.Minute, "the desktop of "+user+" is gone", func() error {
		w, err := f.of(user)
		if err == nil && w != nil {
			err = fmt.Errorf("it is %s: %s", w.State, aws.ToString(w.ErrorMessage))
		}
		return err
	})
}

// mustHave fails unless what is there is what so many desktops need, no more and no less:
// a grant of WorkSpaces and two of EBS each, two volumes on disk and open in volumed, a machine.
func (f *farm) mustHave(t *testing.T, when string, desktops int) {
	t.Helper()
	want := [4]int{3 * desktops, 2 * desktops, 2 * desktops, desktops}
	eventually(t, time.Minute, when+", the grants, volumes on disk, open volumes and machines", func() error {
		g, err := kms.NewFromConfig(f.config()).ListGrants(ctx, &kms.ListGrantsInput{KeyId: &f.key})
		if err != nil {
			return err
		}
		disk := 0
		_ = filepath.WalkDir(filepath.Join(f.data, "volumes"), func(_ string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "vol-") {
				disk++
			}
			return nil
		})
		if have := [4]int{len(g.Grants), disk, f.attached(), len(f.machines())}; have != want {
			return fmt.Errorf("have %v, want %v", have, want)
		}
		return nil
	})
}

// watch reports each successful call as it reaches the audit log. It reads the
// file, so that nothing lies between a step and the kill but a poll of a millisecond.
func (f *farm) watch(ctx context.Context) <-chan *audit.Record {
	files, _ := filepath.Glob(filepath.Join(f.data, "audit", "segment-*.jsonl"))
	file, err := os.Open(files[len(files)-1])
	f.must(err)
	_, err = file.Seek(0, 2)
	f.must(err)
	ch := make(chan *audit.Record, 1000)
	go func() {
		defer file.Close()
		defer close(ch)
		var rest []byte
		buf := make([]byte, 64<<10)
		for ctx.Err() == nil {
			n, _ := file.Read(buf)
			if n == 0 {
				time.Sleep(time.Millisecond)
				continue
			}
			rest = append(rest, buf[:n]...)
			for {
				line, after, whole := bytes.Cut(rest, []byte("\n"))
				if !whole {
					break
				}
				rest = after
				var l struct{ Record audit.Record }
				if json.Unmarshal(line, &l) == nil && l.Record.ErrorCode == "" {
					ch <- &l.Record
				}
			}
		}
	}()
	return ch
}

// seen waits for the nth successful call named so.
func seen(events <-chan *audit.Record, name string, nth int) error {
	for deadline := time.After(2 * time.Minute); ; {
		select {
		case r := <-events:
			if r != nil && r.EventName == name {
				if nth--; nth == 0 {
					return nil
				}
			}
		case <-deadline:
			return fmt.Errorf("%s was not seen within two minutes", name)
		}
	}
}

// steps are the nine of MISSION, each with what tells that it has just happened.
var steps = []struct {
	n     int
	what  string
	event string
	nth   int
	start func(f *farm) // nil: launch
}{
	{1, "WorkSpaces' grant is made", "CreateGrant", 1, nil},
	{2, "EBS's grant for the root volume is made", "CreateGrant", 2, nil},
	{3, "EBS asked for the root volume's data key", "GenerateDataKeyWithoutPlaintext", 1, nil},
	{4, "the second wrapped data key is with its volume", "CreateVolume", 2, nil},
	{5, "the root volume is attached", "AttachVolume", 1, nil},
	{6, "the user volume's data key is decrypted", "Decrypt", 2, nil},
	{7, "the desktop runs", "AttachVolume", 2, nil},
	{8, "a reboot has the root volume's key decrypted again", "Decrypt", 1, (*farm).reboot},
	{9, "a grant is retired", "RetireGrant", 1, (*farm).end},
}

func (f *farm) reboot() {
	if w, err := f.of("jane"); err == nil && w != nil {
		_, _ = workspaces.NewFromConfig(f.config()).RebootWorkspaces(ctx, &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []wstypes.RebootRequest{{WorkspaceId: w.WorkspaceId}}})
	}
}

func (f *farm) end() {
	if w, err := f.of("jane"); err == nil && w != nil {
		_, _ = workspaces.NewFromConfig(f.config()).TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: w.WorkspaceId}}})
	}
}

// TestKilledAtEveryStep: the control plane, volumed and every QEMU are killed with
// kill -9 at each of the nine steps of one user's desktop while another's runs.
// Afterwards both run, or, at the last step, one is gone; and what is left is what they need.
func TestKilledAtEveryStep(t *testing.T) {
	if testing.Short() {
		t.Skip("runs QEMU some thirty times")
	}
	victims := []struct {
		name string
		kill func(f *farm)
	}{
		{"control plane", func(f *farm) { f.kill(); f.start() }},
		{"volumed", func(f *farm) { f.killVolumed() }},
		{"QEMU", func(f *farm) {
			for _, pid := range f.machines() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}},
	}
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			f := newFarm(t)
			_, err := f.launch("john")
			f.must(err)
			f.await(t, "john", wstypes.WorkspaceStateAvailable)
			f.mustHave(t, "before", 1)
			for _, s := range steps {
				t.Run(fmt.Sprintf("%d %s", s.n, s.what), func(t *testing.T) { f.killAt(t, s.event, s.nth, s.start, v.kill) })
				if t.Failed() {
					return
				}
			}
			f.terminate(t, "john")
			f.mustHave(t, "after", 0)
		})
	}
}

func (f *farm) killAt(t *testing.T, event string, nth int, start func(*farm), kill func(*farm)) {
	f.t = t
	if start != nil {
		if _, err := f.launch("jane"); err != nil {
			t.Fatal(err)
		}
		f.await(t, "jane", wstypes.WorkspaceStateAvailable)
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	events := f.watch(watching)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if start != nil {
			start(f)
		} else {
			_, _ = f.launch("jane")
		}
	}()
	if err := seen(events, event, nth); err != nil {
		t.Fatal(err)
	}
	kill(f)
	<-asked
	if event == "RetireGrant" {
		f.awaitGone(t, "jane")
		f.await(t, "john", wstypes.WorkspaceStateAvailable)
		f.mustHave(t, "after the kill", 1)
		return
	}
	w, err := f.of("jane")
	if err != nil {
		t.Fatal(err)
	}
	if w == nil { // killed before the launch was recorded: nothing was promised
		t.Log("the launch was never recorded")
	} else {
		f.await(t, "jane", wstypes.WorkspaceStateAvailable)
	}
	f.await(t, "john", wstypes.WorkspaceStateAvailable)
	if w != nil {
		f.mustHave(t, "after the kill", 2)
	}
	f.terminate(t, "jane")
	f.mustHave(t, "after terminate", 1)
}
