package relay

import (
	"context"
	"errors"
	"net"

	"github.com/postern-relay/postern/config"
)

// LoadOptions is what code, and never a config file, can say about a plan.
type LoadOptions struct {
	// Inject connects the named hosts by the functions given instead of the network; see guard.Dialer.
	Inject map[string]func(ctx context.Context) (net.Conn, error)
}

// Load reads the config file and compiles it. A wrong file is a config.ErrorList with every fault, whichever of the
// two found it. environ is as os.Environ returns it.
func Load(path string, environ []string) (*config.Config, *Plan, error) {
	return LoadWith(path, environ, LoadOptions{})
}

// LoadWith is Load with options.
func LoadWith(path string, environ []string, o LoadOptions) (*config.Config, *Plan, error) {
	cfg, err := config.Load(path, environ)
	var faults config.ErrorList
	if err != nil && (!errors.As(err, &faults) || cfg == nil) {
		return nil, nil, err
	}
	// What could be read is compiled even so, to report all faults in one run.
	plan, planFaults := newPlan(cfg, o)
	if err := append(faults, planFaults...).Err(); err != nil {
		return nil, nil, err
	}
	return cfg, plan, nil
}
