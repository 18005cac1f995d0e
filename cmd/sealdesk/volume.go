package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/spf13/cobra"
)

func volumeCommand() *cobra.Command {
	var cl client
	c := &cobra.Command{Use: "volume", Short: "Work with volumes on this host"}
	cl.flags(c)
	var socket string
	serve := &cobra.Command{
		Use:   "serve VOLUME",
		Short: "Attach an available volume to this host and serve it over NBD until interrupted",
		Long: `Attach an available volume to this host, under IAM, KMS and audit like any attach, and
serve it over NBD on a unix socket until interrupted; then detach it, upon which its
key leaves memory. Clients: nbdinfo, nbdcopy, fio, qemu-img nbd+unix:///?socket=PATH`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return serveVolume(cmd, &cl, args[0], socket) },
	}
	serve.Flags().StringVar(&socket, "socket", "", "path of the unix socket (default VOLUME.sock)")
	c.AddCommand(serve)
	return c
}

func serveVolume(cmd *cobra.Command, cl *client, volume, socket string) error {
	ctx := cmd.Context()
	cfg, err := cl.config(ctx)
	if err != nil {
		return err
	}
	if socket == "" {
		socket = volume + ".sock"
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return err
	}
	if _, err := os.Lstat(socket); err == nil {
		return fmt.Errorf("%s is there already: remove it, or choose another with --socket", socket)
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
	var export struct {
		Socket, Reason *string
		Attached       *bool
	}
	for deadline := time.Now().Add(time.Minute); ; {
		err = extension(ctx, cfg, "DescribeVolumeExport", map[string]string{"VolumeId": volume}, &export)
		if err != nil || aws.ToBool(export.Attached) {
			break
		}
		if time.Now().After(deadline) {
			err = fmt.Errorf("the volume was not attached within a minute: %s", aws.ToString(export.Reason))
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err == nil {
		err = os.Symlink(aws.ToString(export.Socket), socket)
	}
	if err != nil {
		return errors.Join(err, detach())
	}
	defer os.Remove(socket)
	fmt.Fprintf(cmd.OutOrStdout(), "%s is served at nbd+unix:///?socket=%s until you interrupt (Ctrl-C)\n", volume, socket)
	<-ctx.Done()
	return detach()
}
