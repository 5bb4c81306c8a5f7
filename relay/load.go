package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/postern-relay/postern/config"
)

// LoadOptions is what code, and never a config file, can say about a plan.
type LoadOptions struct {
	// Inject connects the named hosts by the functions given instead of the network; see guard.Dialer.
	Inject map[string]func(ctx context.Context) (net.Conn, error)

	// OpenFiles is the limit on open files that connections are shared by; 0 means that of this process.
	OpenFiles uint64
}

// Load reads the config file and compiles it. A wrong file is a config.ErrorList with every fault, whichever of the
// two found it. environ is as os.Environ returns it.
func Load(path string, environ []string) (*config.Config, *Plan, error) {
	return LoadWith(path, environ, LoadOptions{})
}

// LoadWith is Load with options.
func LoadWith(path string, environ []string, o LoadOptions) (*config.Config, *Plan, error) {
	plan, _, err := origin{path: path, environ: environ, options: o}.load()
	if err != nil {
		return nil, nil, err
	}
	return plan.config, plan, nil
}

// origin is where a plan comes from, and can come from again.
type origin struct {
	path    string // of the config file; empty for none
	environ []string
	options LoadOptions
}

// load is Load. It also returns the files that the outcome depends on, which are known in part even if there is no plan.
func (o origin) load() (plan *Plan, files []string, err error) {
	files = []string{o.path}
	cfg, err := config.Load(o.path, o.environ)
	if cfg != nil {
		files = append(files, filesOf(cfg)...)
	}
	var faults config.ErrorList
	if err != nil && (!errors.As(err, &faults) || cfg == nil) {
		return nil, files, err
	}
	// What could be read is compiled even so, to report all faults in one run.
	plan, planFaults := newPlan(cfg, o.options)
	if err := append(faults, planFaults...).Err(); err != nil {
		return nil, files, err
	}
	plan.origin = o
	if plan.shown, err = showDestinations(cfg); err != nil {
		return nil, files, fmt.Errorf("show config %q: %w", o.path, err)
	}
	return plan, files, nil
}

// filesOf returns the files that a config refers to. Certificates are among them though a running destination follows
// its own: a config that was refused for want of one is good as soon as it is there.
func filesOf(cfg *config.Config) []string {
	files := cfg.Files()
	for _, d := range cfg.Destinations {
		for _, file := range []string{d.TLS.CAFile, d.TLS.CertFile, d.TLS.KeyFile} {
			if file != "" {
				files = append(files, file)
			}
		}
	}
	for _, file := range filesOfHTTPS(cfg.Listen.HTTPS) {
		if file != "" {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}
