package main

import (
	"github.com/spf13/cobra"

	"github.com/sealdesk/sealdesk/internal/block/volumed"
)

// volumedCommand is started by the server; nobody needs to run it by hand.
func volumedCommand() *cobra.Command {
	var cfg volumed.Config
	c := &cobra.Command{
		Use:    "volumed",
		Short:  "Hold the keys of attached volumes and serve them (started by serve)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return volumed.Main(cfg) },
	}
	c.Flags().StringVar(&cfg.ControlSocket, "control", "", "control socket")
	c.Flags().StringVar(&cfg.ObjectStore, "object-store", "", "where volumes live (default: in their directories)")
	c.Flags().BoolVar(&cfg.FlushRemote, "flush-to-store", false, "a flush reaches the object store")
	_ = c.MarkFlagRequired("control")
	return c
}
