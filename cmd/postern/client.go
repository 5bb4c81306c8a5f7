package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/admin"
)

// Environment variables with tokens. Tokens are never flags: arguments stand in the shell's history and in the list of
// processes.
const (
	envAdminToken  = "POSTERN_ADMIN_TOKEN"
	envIngestToken = "POSTERN_TOKEN"
)

// adminFlags adds what a command needs to find the admin listener.
func (p *program) adminFlags(cmd *cobra.Command) {
	p.configFlag(cmd)
	cmd.Flags().StringVar(&p.admin, "admin", "", "address of the admin listener, such as 127.0.0.1:8026; else listen.admin of the config file")
	cmd.Flags().StringVar(&p.adminTokenFile, "admin-token-file", "",
		"file with its token; else the environment's "+envAdminToken+", else from listen.admin_tokens of the config file")
}

// adminClient returns a client of the running relay. The config file is read only if no flag says the address. A token of
// the config goes only to the address of the config.
func (p *program) adminClient() (admin.Client, error) {
	token, err := p.token(p.adminTokenFile, envAdminToken)
	if err != nil || p.admin != "" {
		return admin.Client{Address: p.admin, Token: token}, err
	}
	cfg := p.looseConfig(true)
	address := config.DefaultAdmin
	if !cfg.Faulty("listen.admin") {
		address = cfg.Listen.Admin
		if token == "" && !cfg.Faulty("listen.admin_tokens") && len(cfg.Listen.AdminTokens) > 0 {
			token = cfg.Listen.AdminTokens[0].Token.Reveal()
		}
	}
	return admin.Client{Address: address, Token: token}, nil
}

// looseConfig returns what can be read of the config file. Faults elsewhere in it do not matter to a client: a secret
// that is not visible to it, say. Without a file there is still the environment. If tell, there is a line for whoever named
// the wrong file, or one with a fault for which another relay may be asked.
func (p *program) looseConfig(tell bool) *config.Config {
	cfg, err := config.Load(p.configPath, p.environ)
	faults, _ := errors.AsType[config.ErrorList](err)
	faults = faultsAt(faults, ofListeners)
	switch {
	case !tell:
	case errors.Is(err, fs.ErrNotExist):
		p.tellNoConfig()
	case cfg == nil:
		fmt.Fprintf(p.stderr, "postern: %s; going by the environment and the defaults\n", cleanBlock(err.Error()))
	case len(faults) > 0:
		fmt.Fprintf(p.stderr, "postern: %s; going by what can be read of it\n", cleanBlock(faults[0].Error()))
	}
	if cfg == nil {
		cfg, _ = p.environment()
	}
	return cfg
}

// ofListeners reports whether a path is that of an address, or of a key that may be a misspelt one.
func ofListeners(path string) bool {
	key, ok := strings.CutPrefix(path, "listen.")
	return ok && key == section(key)
}

func (p *program) tellNoConfig() {
	fmt.Fprintf(p.stderr, "postern: there is no config file %s; going by the environment and the defaults\n", clean(p.configPath))
}

// token reads a token from a file if one is named, else from the environment; it is empty for none. Where a file cannot
// be opened its name is not shown, which may be a token that was written in its place.
func (p *program) token(file, variable string) (string, error) {
	if file == "" {
		token := p.getenv(variable)
		if token != "" && !isToken(token) {
			return "", usageError{fmt.Errorf("%s holds no token: a token is one line of visible ASCII characters", variable)}
		}
		return token, nil
	}
	raw, err := p.readInput(file, maxKeyFile)
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	if err != nil {
		return "", usageError{fmt.Errorf("read token: %w", err)}
	}
	token := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if !isToken(token) {
		return "", usageError{errors.New("the file named for the token holds none: a token is one line of visible ASCII characters")}
	}
	return token, nil
}

// isToken reports whether a text can be sent as a token.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// advised adds to an error of a call what to do about it, and tells the caller's mistakes from failures.
func advised(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, admin.ErrAddress) {
		return usageError{err}
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%w; is postern run running? start it, or name the admin listener of the one that is by --admin", err)
	}
	if errors.Is(err, admin.ErrCut) {
		return fmt.Errorf("%w; see whether postern run is still running, and try again", err)
	}
	if refusal, ok := errors.AsType[*admin.Refusal](err); ok {
		switch refusal.Status {
		case http.StatusBadRequest:
			return usageError{err}
		case http.StatusUnauthorized:
			return fmt.Errorf("%w; give the token by %s or --admin-token-file", err, envAdminToken)
		}
	}
	return err
}

// The time format of everything that is shown to people, in their own zone.
const clockFormat = "2006-01-02 15:04:05"

// clock writes a time for a person.
func clock(t time.Time) string { return t.Local().Format(clockFormat + " MST") }
