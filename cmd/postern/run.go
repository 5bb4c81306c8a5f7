package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/store/badgerstore"
)

// The soft limit on the Go heap, in bytes, makes the collector work harder rather than let a sidecar grow: compactions of
// the store allocate and drop tens of megabytes each. A destination that is busy has connections, a window of its queue, and
// requests in flight; without room for those of many, the collector would take all the time. GOMEMLIMIT in the environment
// sets another limit.
const (
	memoryLimit       = 128 << 20
	destinationMemory = 128 << 10 // of each destination
)

// heapLimit is the limit of a relay with so many destinations.
func heapLimit(destinations int) int64 { return memoryLimit + int64(destinations)*destinationMemory }

// spareThreads is how many goroutines may run beside one for each core. The committer is in a system call most of the
// time, where it counts as running until the scheduler notices, which takes some milliseconds when there is little to do.
const spareThreads = 2

// useCores lets other goroutines have the core while a sync keeps one waiting. GOMAXPROCS in the environment sets another
// number.
func (p *program) useCores() {
	if p.getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // what the machine, or the container's share of it, has
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareThreads)
	}
}

// limitMemory sets the limit for this process.
func (p *program) limitMemory(destinations int) {
	if p.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapLimit(destinations))
	}
}

// runOptions is what the command line says about one running relay.
type runOptions struct {
	drain      time.Duration
	acceptLoss bool
	relay      relay.LoadOptions
}

func (p *program) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the relay until SIGTERM or Ctrl-C",
		Long: `Run the relay. It listens for the app's posts on listen.ingest (127.0.0.1:8025) and answers health checks
on listen.admin (127.0.0.1:8026).

The config is read again when it, or a file that it refers to, has changed, and on SIGHUP. A wrong one changes
nothing and is told in the log. See docs/operations.md for what cannot change without a restart.

SIGTERM or Ctrl-C stops accepting, lets the attempts in flight finish within --drain, and exits 0; what is
left is delivered after the next start. A second signal ends the process at once, which loses nothing either.

Exit codes: 1 failed, 2 wrong command line or config, 3 the data folder is in use, 4 the store is damaged or a
restore into it was cut off, 5 the disk failed while running, 6 the store needs another encryption key.`,
		Example: "  postern run --config postern.yaml\n  POSTERN_STORE_PATH=/data postern run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.drain <= 0 {
				return usageError{errors.New("--drain: give a time above 0, such as 10s")}
			}
			return p.serve(cmd.Context(), o)
		},
	}
	p.configFlag(cmd)
	cmd.Flags().DurationVar(&o.drain, "drain", 10*time.Second, "how long attempts in flight may go on after a stop")
	cmd.Flags().BoolVar(&o.acceptLoss, "accept-loss", false,
		"serve a store although it reports missing records; read its report first")
	return cmd
}

// serve runs one relay from its config file until ctx ends.
func (p *program) serve(ctx context.Context, o runOptions) (err error) {
	// From the beginning, since a hangup without a handler ends a process. One that comes early is kept.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	cfg, plan, err := relay.LoadWith(p.configPath, p.environ, o.relay)
	if err != nil {
		return usageError{err}
	}
	level, err := zapcore.ParseLevel(cfg.Log.Level)
	if err != nil {
		return fmt.Errorf("log level: %w", err)
	}
	current := zap.NewAtomicLevelAt(level)
	log := newLogger(p.stderr, cfg.Log.Format, current)
	defer func() { _ = log.Sync() }() // a terminal or a pipe has nothing to sync, and says so
	defer adoptStandardLog(log.Named("library"))()
	p.limitMemory(len(plan.Destinations()))
	p.useCores()
	version, commit := versionOf(debug.ReadBuildInfo())
	log.Info("starting", zap.String("version", version), zap.String("commit", commit),
		zap.String("config", p.configPath), zap.Int("destinations", len(plan.Destinations())))
	p.warnOfIgnored(log)
	for _, w := range cfg.Warnings() {
		log.Warn("config", zap.String("place", w.File), zap.Int("line", w.Line), zap.String("reason", w.Msg))
	}

	sockets, err := inheritedSockets(log)
	if err != nil {
		return usageError{err}
	}
	boss := supervisor{log.Named("supervisor")}
	boss.say("STATUS=opening the store")

	// What Badger creates would otherwise be readable by everyone (T33).
	syscall.Umask(0o077)

	registry := prometheus.NewRegistry() // of store and relay

	// The store is opened and closed here, outside of everything that uses it.
	st, err := badgerstore.Open(badgerstore.Options{
		Path:       cfg.Store.Path,
		MinFree:    int64(cfg.Store.MinFree),
		MaxPending: int64(cfg.Store.MaxPending),
		AcceptLoss: o.acceptLoss,
		Keys:       plan.StoreKeys(),
		Log:        log.Named("store"),
		Metrics:    registry,
	})
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer func() {
		if closeErr := st.Close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close store: %w", closeErr))
		}
	}()

	r := &relay.Relay{
		Plan: plan, Store: st, Backups: st, Drain: o.drain, Log: log, Level: &current, Hangups: hangups, Follow: true, Version: version,
		Metrics: registry, Sockets: sockets,
	}
	r.OnPhase = func(phase relay.Phase) {
		p.limitMemory(r.Destinations()) // a reload may have brought many
		boss.phase(phase, r.LastReload())
	}
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // the drain is watched as well
	var watchdog sync.WaitGroup
	watchdog.Go(func() { boss.watch(watching, r.Alive) })
	watchdog.Go(p.dumpOn(watching))
	err = r.Run(ctx)
	unwatch()
	watchdog.Wait()
	if err != nil {
		log.Error("stopped", zap.Error(err))
		if _, ok := errors.AsType[*relay.ConfigError](err); ok {
			return usageError{err}
		}
		return err
	}
	log.Info("stopped")
	return nil
}

// warnOfIgnored names the proxy variables of the environment: other programs obey them, and Postern never does.
func (p *program) warnOfIgnored(log *zap.Logger) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		if p.getenv(name) != "" {
			log.Warn("proxy variable ignored", zap.String("name", name))
		}
	}
}
