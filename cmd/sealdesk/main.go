// Command sealdesk is the one binary: the server (serve), the process that holds
// volume keys (volumed, started by the server), and the operator's tools. The
// tools that act on a running server are clients of its public APIs, signed with
// the caller's credentials; there is no other door.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "sealdesk:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{Use: "sealdesk", Short: "A self-hosted cloud of encrypted desktops", SilenceUsage: true, SilenceErrors: true}
	c.AddCommand(serveCommand(), volumedCommand(), statusCommand(), screenshotCommand(), desktopCommand(), directoryCommand(), volumeCommand(), auditCommand(), xksProxyCommand(),
		unsealCommand(), rootCommand(), backupCommand(), restoreCommand())
	return c
}
