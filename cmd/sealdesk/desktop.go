package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"

	"github.com/sealdesk/sealdesk/internal/workspaces"
)

// shown is a Desktop as awsJson writes it: times are epoch seconds.
type shown struct {
	workspaces.Desktop
	StartedAt, DesktopReadyAt *float64
}

func statusCommand() *cobra.Command {
	var cl client
	c := &cobra.Command{
		Use:   "status [WORKSPACE…]",
		Short: "Show the desktops and the machines behind them",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			var out struct{ Desktops []shown }
			if err := extension(cmd.Context(), cfg, "DescribeDesktops", workspaces.DescribeDesktopsInput{WorkspaceIds: args}, &out); err != nil {
				return err
			}
			if len(out.Desktops) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "No desktops. `aws workspaces create-workspaces` launches one.")
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "WORKSPACE\tUSER\tSTATE\tMACHINE\tPID\tMEMORY\tUP\tROOT\tHOME\tNOTE")
			for _, d := range out.Desktops {
				up, mem, pid := "-", "-", "-"
				if d.StartedAt != nil {
					up = time.Since(time.UnixMilli(int64(*d.StartedAt * 1000))).Round(time.Second).String()
				}
				if d.MemoryBytes != nil && *d.MemoryBytes > 0 {
					mem = fmt.Sprintf("%d MiB", *d.MemoryBytes>>20)
				}
				if d.ProcessId != nil && *d.ProcessId > 0 {
					pid = fmt.Sprint(*d.ProcessId)
				}
				note := aws.ToString(d.ErrorMessage)
				if note == "" {
					note = aws.ToString(d.Progress)
				}
				machine := aws.ToString(d.MachineState)
				if a := aws.ToString(d.Accelerator); a != "" && machine != "" {
					machine += " (" + a + ")"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", aws.ToString(d.WorkspaceId), aws.ToString(d.UserName), aws.ToString(d.State), machine, pid, mem, up,
					aws.ToString(d.RootVolumeId), aws.ToString(d.UserVolumeId), note)
			}
			return w.Flush()
		},
	}
	cl.flags(c)
	return c
}

func screenshotCommand() *cobra.Command {
	var cl client
	var file string
	c := &cobra.Command{
		Use:   "screenshot WORKSPACE",
		Short: "Write a PNG of a desktop's screen",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			var out workspaces.GetDesktopScreenshotOutput
			if err := extension(cmd.Context(), cfg, "GetDesktopScreenshot", workspaces.GetDesktopScreenshotInput{WorkspaceId: &args[0]}, &out); err != nil {
				return err
			}
			if file == "" {
				file = args[0] + ".png"
			}
			if err := os.WriteFile(file, out.Png, 0o600); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), file)
			return nil
		},
	}
	cl.flags(c)
	c.Flags().StringVarP(&file, "output", "o", "", "file to write (default WORKSPACE.png)")
	return c
}

func desktopCommand() *cobra.Command {
	var cl client
	c := &cobra.Command{Use: "desktop", Short: "Act on a running desktop"}
	cl.flags(c)
	var keys []string
	input := &cobra.Command{
		Use:   "type WORKSPACE [TEXT]",
		Short: "Press keys and type text on a desktop's keyboard",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			in := workspaces.SendDesktopInputInput{WorkspaceId: &args[0], Keys: keys}
			if len(args) > 1 {
				in.Text = &args[1]
			}
			var out workspaces.SendDesktopInputOutput
			return extension(cmd.Context(), cfg, "SendDesktopInput", in, &out)
		},
	}
	input.Flags().StringSliceVar(&keys, "keys", nil, "keys pressed together before the text, such as ctrl-alt-t")
	c.AddCommand(input)
	return c
}
