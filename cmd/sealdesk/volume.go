package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/spf13/cobra"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/nbd"
)

func volumeCommand() *cobra.Command {
	var cl client
	c := &cobra.Command{Use: "volume", Short: "Work with volumes on this host"}
	cl.flags(c)
	c.AddCommand(volumeServe(&cl), volumeCheck(&cl), volumeExport(&cl), volumeImport(&cl), volumeAccept(&cl))
	return c
}

func volumeServe(cl *client) *cobra.Command {
	var socket, listen, ca, cert, key string
	c := &cobra.Command{
		Use:   "serve VOLUME",
		Short: "Attach an available volume to this host and serve it over NBD until interrupted",
		Long: `Attach an available volume to this host, under IAM, KMS and audit like any attach, and
serve it over NBD on a unix socket until interrupted; then detach it, upon which its
key leaves memory. Clients: nbdinfo, nbdcopy, fio, qemu-img nbd+unix:///?socket=PATH

With --listen it is served over TCP too, to clients that show a certificate which the
authority in --tls-ca has signed: nbds://HOST:PORT/VOLUME`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			volume := args[0]
			if socket == "" {
				socket = volume + ".sock"
			}
			socket, err := filepath.Abs(socket)
			if err != nil {
				return err
			}
			if _, err := os.Lstat(socket); err == nil {
				return fmt.Errorf("%s is there already: remove it, or choose another with --socket", socket)
			}
			return cl.withVolume(cmd.Context(), volume, func(ctx context.Context, served string) error {
				if err := os.Symlink(served, socket); err != nil {
					return err
				}
				defer os.Remove(socket)
				fmt.Fprintf(cmd.OutOrStdout(), "%s is served at nbd+unix:///?socket=%s until you interrupt (Ctrl-C)\n", volume, socket)
				if listen == "" {
					<-ctx.Done()
					return nil
				}
				return serveTLS(ctx, cmd, volume, served, listen, ca, cert, key)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&socket, "socket", "", "path of the unix socket (default VOLUME.sock)")
	f.StringVar(&listen, "listen", "", "address to serve on over TCP with mutual TLS (default: none)")
	f.StringVar(&ca, "tls-ca", "", "PEM file of the authority that signs clients' certificates")
	f.StringVar(&cert, "tls-cert", "", "PEM certificate of this server")
	f.StringVar(&key, "tls-key", "", "PEM key of the certificate")
	c.MarkFlagsRequiredTogether("listen", "tls-ca", "tls-cert", "tls-key")
	return c
}

// serveTLS passes the export on a unix socket on to TCP.
func serveTLS(ctx context.Context, cmd *cobra.Command, volume, socket, listen, ca, cert, key string) error {
	cfg, err := nbd.MutualTLS(ca, cert, key)
	if err != nil {
		return err
	}
	dev, err := nbd.Dial(ctx, socket, volume)
	if err != nil {
		return err
	}
	defer dev.Close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "and at nbds://%s/%s\n", l.Addr(), volume)
	s := &nbd.Server{Exports: []nbd.Export{{Name: volume, Description: "Sealdesk volume " + volume, Device: dev}}, TLS: cfg}
	return s.Serve(ctx, l)
}

func volumeCheck(cl *client) *cobra.Command {
	return &cobra.Command{
		Use:   "check VOLUME",
		Short: "Read and authenticate every block of a volume, and tell what is damaged",
		Long: `Read every allocated block of a volume. Each is authenticated on the way: one that was
changed, moved or put back from an earlier time does not pass. A volume that is not attached is
attached to this host for the time, under IAM, KMS and audit; one that is in use is read where it is served.
Exits 1 when anything is damaged.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			return cl.withVolume(cmd.Context(), args[0], func(ctx context.Context, socket string) error {
				dev, err := nbd.Dial(ctx, socket, args[0])
				if err != nil {
					return err
				}
				defer dev.Close()
				var read, bad int64
				err = block.CheckDevice(ctx, dev, func(n int64) { read += n }, func(d block.Damage) {
					bad += d.Len
					fmt.Fprintf(cmd.OutOrStdout(), "damaged: %d bytes at %d: %v\n", d.Len, d.Off, d.Err)
				})
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d of %d bytes are allocated and were read, %d damaged\n", args[0], read, dev.Size(), bad)
				if bad > 0 {
					return fmt.Errorf("%s is damaged; everything else in it can still be read", args[0])
				}
				return nil
			}, useInPlace)
		},
	}
}

func volumeAccept(cl *client) *cobra.Command {
	return &cobra.Command{
		Use:   "accept-state VOLUME",
		Short: "Accept a volume's present state on the host although it is older than the last recorded one",
		Long: `A volume whose files are older than the state last recorded of it does not open: someone put an old copy
back. When that was you, restoring a backup, this says so: the next attach takes the state it finds. The call is authorised
(sealdesk:AcceptVolumeState on the volume) and stands in the audit log with the state that was given up.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			var out struct{ ExpectedState string }
			if err := extension(cmd.Context(), cfg, "AcceptVolumeState", map[string]string{"VolumeId": args[0]}, &out); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: the next attach takes the state it finds (recorded was %s)\n", args[0], out.ExpectedState)
			return nil
		},
	}
}

func volumeExport(cl *client) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "export VOLUME FILE",
		Short: "Write the content of an available volume into an image file, in the clear",
		Long: `Attach an available volume to this host, under IAM, KMS and audit, and copy its content into
an image file with qemu-img; then detach it. The file is NOT encrypted.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Lstat(args[1]); err == nil {
				return fmt.Errorf("%s is there already", args[1])
			}
			file, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			return cl.withVolume(cmd.Context(), args[0], func(ctx context.Context, socket string) error {
				f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // qemu-img keeps the mode
				if err != nil {
					return err
				}
				f.Close()
				if err := qemuImg(ctx, cmd, "convert", "-p", "-f", "raw", "-O", format, nbdURI(args[0], socket), file); err != nil {
					return errors.Join(err, os.Remove(file))
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&format, "format", "qcow2", "format of the file: qcow2 or raw")
	return c
}

func volumeImport(cl *client) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "import FILE VOLUME",
		Short: "Write an image file into an available volume",
		Long: `Attach an available volume to this host, under IAM, KMS and audit, and copy an image
into it with qemu-img; then detach it. The volume must be at least as large as the image's disk; what lies behind stays as it is.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			out, err := exec.CommandContext(cmd.Context(), "qemu-img", "info", "--output=json", "-f", format, file).Output()
			if err != nil {
				return fmt.Errorf("qemu-img info %s: %w", file, explain(err))
			}
			var info struct {
				Size    int64  `json:"virtual-size"`
				Backing string `json:"backing-filename"`
			}
			if err := json.Unmarshal(out, &info); err != nil {
				return fmt.Errorf("qemu-img info %s: %w", file, err)
			}
			if info.Backing != "" {
				return fmt.Errorf("%s reads through another file (%s); flatten it first: qemu-img convert", file, info.Backing)
			}
			return cl.withVolume(cmd.Context(), args[1], func(ctx context.Context, socket string) error {
				dev, err := nbd.Dial(ctx, socket, args[1])
				if err != nil {
					return err
				}
				size := dev.Size()
				dev.Close()
				if info.Size > size {
					return fmt.Errorf("the image is a disk of %d bytes, the volume has only %d", info.Size, size)
				}
				return qemuImg(ctx, cmd, "convert", "-p", "-n", "-f", format, "-O", "raw", file, nbdURI(args[1], socket))
			})
		},
	}
	c.Flags().StringVar(&format, "format", "qcow2", "format of the file: qcow2 or raw (it is not guessed, because a raw disk may look like anything)")
	return c
}

func nbdURI(volume, socket string) string { return "nbd+unix:///" + volume + "?socket=" + socket }

func qemuImg(ctx context.Context, cmd *cobra.Command, args ...string) error {
	c := exec.CommandContext(ctx, "qemu-img", args...)
	c.Stdout, c.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := c.Run(); err != nil {
		return fmt.Errorf("qemu-img %s: %w", args[0], err)
	}
	return nil
}

// explain adds what a command wrote to its error.
func explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}

// useInPlace lets withVolume take a volume that is attached elsewhere on this host, as it is.
const useInPlace = true

// withVolume attaches an available volume to this host, runs do with the NBD socket that serves it, and detaches it.
func (cl *client) withVolume(ctx context.Context, volume string, do func(ctx context.Context, socket string) error, inPlace ...bool) error {
	cfg, err := cl.config(ctx)
	if err != nil {
		return err
	}
	var export struct {
		Socket, Reason *string
		Attached       *bool
	}
	ask := func() error {
		return extension(ctx, cfg, "DescribeVolumeExport", map[string]string{"VolumeId": volume}, &export)
	}
	if len(inPlace) > 0 {
		if err := ask(); err != nil {
			return err
		}
		if aws.ToBool(export.Attached) {
			return do(ctx, aws.ToString(export.Socket))
		}
	}
	api := ec2.NewFromConfig(cfg)
	var where struct{ InstanceId, Socket, Reason *string }
	if err := extension(ctx, cfg, "DescribeHost", struct{}{}, &where); err != nil {
		return fmt.Errorf("ask for this host: %w", err)
	}
	// Device names matter to no one here, but each may be used once.
	for name := byte('f'); ; name++ {
		_, err := api.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &volume, InstanceId: where.InstanceId, Device: aws.String("/dev/sd" + string(name))})
		if err == nil {
			break
		}
		if name == 'z' || !strings.Contains(err.Error(), "Attachment point") {
			return err
		}
	}
	detach := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_, err := api.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &volume})
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if err = ask(); err != nil || aws.ToBool(export.Attached) {
			break
		}
		if time.Now().After(deadline) {
			err = fmt.Errorf("the volume was not attached within a minute: %s", aws.ToString(export.Reason))
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err == nil {
		err = do(ctx, aws.ToString(export.Socket))
	}
	return errors.Join(err, detach())
}
