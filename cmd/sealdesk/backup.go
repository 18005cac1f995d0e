package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/durable"
)

func backupCommand() *cobra.Command {
	var cl client
	var file string
	var without, keep bool
	c := &cobra.Command{
		Use:   "backup",
		Short: "Back the whole service up into one file",
		Long: `Back up every record of the store as of one moment, the audit log and the trails' files.
Secrets in it are wrapped under the root key. A root key that is sealed by a passphrase or a
token goes along, sealed; one that lies in a file does not: copy DATA-DIR/root to another safe
place. The data of volumes is not in it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			var made app.CreateBackupOutput
			if err := extension(cmd.Context(), cfg, "CreateBackup", app.CreateBackupInput{WithoutRootKeys: &without}, &made); err != nil {
				return err
			}
			name := aws.ToString(made.Name)
			if file == "" {
				file = name + ".backup"
			}
			f, err := os.OpenFile(file+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			defer func() {
				f.Close()
				if err != nil {
					os.Remove(file + ".part")
				}
			}()
			sum := sha256.New()
			for offset, total := int64(0), int64(1); offset < total; {
				var part app.GetBackupPartOutput
				if err := extension(cmd.Context(), cfg, "GetBackupPart", app.GetBackupPartInput{Name: &name, Offset: &offset}, &part); err != nil {
					return err
				}
				if len(part.Data) == 0 {
					return fmt.Errorf("the server gave nothing at byte %d of %d", offset, aws.ToInt64(part.Bytes))
				}
				sum.Write(part.Data)
				if _, err := f.Write(part.Data); err != nil {
					return err
				}
				offset, total = offset+int64(len(part.Data)), aws.ToInt64(part.Bytes)
			}
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				return err
			}
			if err := os.Rename(file+".part", file); err != nil {
				return err
			}
			if err := durable.SyncDir(filepath.Dir(file)); err != nil {
				return err
			}
			if !keep {
				if err := extension(cmd.Context(), cfg, "DeleteBackup", app.DeleteBackupInput{Name: &name}, &app.DeleteBackupOutput{}); err != nil {
					return err
				}
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s\t%d bytes\tsha256 %s\n", file, aws.ToInt64(made.Bytes), hex.EncodeToString(sum.Sum(nil)))
			if !aws.ToBool(made.RootKeysIncluded) {
				fmt.Fprintln(out, "The root key is not in it: keep a copy of DATA-DIR/root in another safe place.")
			}
			return nil
		},
	}
	cl.flags(c)
	c.Flags().StringVarP(&file, "output", "o", "", "file to write (default sealdesk-TIME-….backup)")
	c.Flags().BoolVar(&without, "without-root-keys", false, "leave sealed root keys out")
	c.Flags().BoolVar(&keep, "keep", false, "leave the backup on the server too, in DATA-DIR/backups")
	return c
}

func restoreCommand() *cobra.Command {
	var dir, roots string
	c := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Put a backup into an empty data directory",
		Long: `Put a backup into an empty data directory; then start the server there. The archive is
checked from end to end before anything is written. A root key that is not in it comes from
--root-keys, or lies in DATA-DIR/root already.

Stop the server that the backup was made of for good first: two servers that go on from the
same records and the same audit log contradict each other.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			m, err := app.Restore(cmd.Context(), dir, args[0], roots)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Restored account %s as of %s (revision %d) into %s. Start it with: sealdesk serve --data-dir %s\n", m.Account, m.Created, m.Revision, dir, dir)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "data-dir", defaultDataDir(), "data directory, empty or not there")
	c.Flags().StringVar(&roots, "root-keys", "", "directory to take root key files from")
	return c
}
