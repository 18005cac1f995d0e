package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// askSecret reads a passphrase or PIN from a file, else from the terminal without
// showing it; never from an argument or the environment, which others can read.
func askSecret(file, prompt string, twice bool) (*secret.Bytes, error) {
	if file != "" {
		return app.ReadSecret(file)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask for the secret: give --secret-file (/dev/stdin for standard input)")
	}
	defer tty.Close()
	first, err := hidden(tty, prompt+": ")
	if err != nil || !twice {
		return first, err
	}
	second, err := hidden(tty, "again: ")
	if err != nil {
		return nil, err
	}
	defer second.Wipe()
	if !first.Equal(second) {
		first.Wipe()
		return nil, errors.New("the two are not the same")
	}
	return first, nil
}

func hidden(tty *os.File, prompt string) (*secret.Bytes, error) {
	old, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("quiet the terminal: %w", err)
	}
	quiet := *old
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, &quiet); err != nil {
		return nil, fmt.Errorf("quiet the terminal: %w", err)
	}
	defer func() {
		_ = unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, old)
		fmt.Fprintln(tty)
	}()
	fmt.Fprint(tty, prompt)
	line, err := bufio.NewReaderSize(tty, 8192).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("read from the terminal: %w", err)
	}
	if len(line) < 2 {
		return nil, errors.New("nothing was typed")
	}
	return secret.New(line[:len(line)-1]), nil
}

func unsealCommand() *cobra.Command {
	var dir, file string
	c := &cobra.Command{
		Use:   "unseal",
		Short: "Give a sealed server its passphrase, or the PIN of its token",
		Long: `Give a sealed server, on this machine, the passphrase of its root key or the PIN of the
token that seals it. It is asked for at the terminal, or read from the first line of a file.

A sealed server can check no signature, as the secrets of access keys are under the root key
too; so this goes over a unix socket that only the server's user (and root) can open.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			sec, err := askSecret(file, "passphrase or PIN", false)
			if err != nil {
				return err
			}
			defer sec.Wipe()
			said, err := app.Unseal(cmd.Context(), dir, sec)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), said)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "data-dir", defaultDataDir(), "data directory of the server")
	c.Flags().StringVar(&file, "secret-file", "", "file whose first line is the secret (default: ask at the terminal)")
	return c
}

func printRoots(cmd *cobra.Command, out *app.DescribeRootKeyOutput) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROOT KEY\tGENERATION\tSEAL\tCREATED\tUSE")
	for _, k := range out.Keys {
		use := "opens only, until all is wrapped anew"
		if aws.ToBool(k.Current) {
			use = "current"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", aws.ToString(k.Id), aws.ToInt64(k.Generation), aws.ToString(k.Seal), aws.ToString(k.Created), use)
	}
	return w.Flush()
}

func rootCommand() *cobra.Command {
	var cl client
	c := &cobra.Command{Use: "root", Short: "Work with the root key, under which all keys are wrapped"}
	cl.flags(c)
	status := &cobra.Command{
		Use: "status", Short: "Show the root keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			var out app.DescribeRootKeyOutput
			if err := extension(cmd.Context(), cfg, "DescribeRootKey", struct{}{}, &out); err != nil {
				return err
			}
			return printRoots(cmd, &out)
		},
	}
	var seal, file string
	var wait bool
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Make a new root key, wrap everything under it, destroy the old one",
		Long: `Make a new root key and wrap everything under it, while the server serves; then destroy the
old one. With --seal the new key is sealed another way, for example by a passphrase, which is
asked for at the terminal or read from --secret-file. The old passphrase or token is not
needed any more once this has returned.

A backup made before needs the old root key: make a new one afterwards.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			var in app.RotateRootKeyInput
			if seal != "" {
				in.Seal = &seal
			}
			if seal == "passphrase" || seal == "pkcs11" || file != "" {
				prompt := map[string]string{"pkcs11": "PIN of the token"}[seal]
				if prompt == "" {
					prompt = "new passphrase"
				}
				sec, err := askSecret(file, prompt, seal != "pkcs11")
				if err != nil {
					return err
				}
				in.Secret = aws.String(string(sec.Expose()))
				sec.Wipe()
			}
			var out app.DescribeRootKeyOutput
			if err := extension(cmd.Context(), cfg, "RotateRootKey", in, &out); err != nil {
				return err
			}
			for wait && len(out.Keys) > 1 {
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-time.After(200 * time.Millisecond):
				}
				out = app.DescribeRootKeyOutput{}
				if err := extension(cmd.Context(), cfg, "DescribeRootKey", struct{}{}, &out); err != nil {
					return err
				}
			}
			return printRoots(cmd, &out)
		},
	}
	rotate.Flags().StringVar(&seal, "seal", "", "how the new key is sealed: file, passphrase or pkcs11 (default: as the present one)")
	rotate.Flags().StringVar(&file, "secret-file", "", "file whose first line is the new passphrase (default: ask at the terminal)")
	rotate.Flags().BoolVar(&wait, "wait", true, "wait until the old key is destroyed")
	c.AddCommand(status, rotate)
	return c
}
