package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sealdesk/sealdesk/internal/audit"
)

func auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Work with the audit log"}
	var dir string
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Check the whole log: every record's hash, the chain, the signed checkpoints",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := audit.Verify(filepath.Join(dir, "audit"), nil, nil)
			if err != nil {
				return err
			}
			for _, p := range r.Problems {
				fmt.Fprintln(cmd.OutOrStdout(), p)
			}
			if !r.OK() {
				return fmt.Errorf("the audit log does not verify: %d problems", len(r.Problems))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ok: %+v\n", *r)
			return nil
		},
	}
	verify.Flags().StringVar(&dir, "data-dir", defaultDataDir(), "data directory")
	c.AddCommand(verify)
	return c
}
