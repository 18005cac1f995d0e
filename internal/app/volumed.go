package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sealdesk/sealdesk/internal/block/volumed"
)

// keeper keeps the volumed process of this data directory running. It leaves it
// running when the server stops: desktops go on without the control plane.
type keeper struct {
	client *volumed.Client
	argv   []string
	log    string // volumed's log file
	logger *slog.Logger
}

func newKeeper(cfg *Config) (*keeper, error) {
	if err := os.MkdirAll(cfg.socketDir(), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of sockets: %w", err)
	}
	socket := filepath.Join(filepath.Dir(cfg.socketDir()), "volumed.sock")
	argv := []string{cfg.Self, "volumed", "--control", socket}
	if cfg.ObjectStore != "" {
		argv = append(argv, "--object-store", cfg.ObjectStore, fmt.Sprintf("--flush-to-store=%t", cfg.FlushToStore))
	}
	return &keeper{client: &volumed.Client{Socket: socket}, argv: argv,
		log: filepath.Join(cfg.DataDir, "volumed.log"), logger: cfg.Logger}, nil
}

// Run starts volumed when it does not answer, until ctx ends.
func (k *keeper) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := k.ensure(ctx); err != nil && ctx.Err() == nil {
			k.logger.Error("volumed could not be started", "err", err, "log", k.log)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (k *keeper) ensure(ctx context.Context) error {
	if _, err := k.client.Ping(ctx); err == nil {
		return nil
	}
	f, err := os.OpenFile(k.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := volumed.Start(ctx, k.argv, k.client.Socket, f)
	if err == nil {
		k.logger.Info("volumed runs", "pid", info.PID)
	}
	return err
}
