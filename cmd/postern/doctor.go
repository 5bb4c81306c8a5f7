package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/relay/admin"
)

func (p *program) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor [DEST…]",
		Short: "Look at everything around a relay, and say what is wrong and what to do",
		Long: `Look at config, secrets, folder, disk, store, clock, limits, listeners and their certificates, and at the way to
each destination: DNS, the guard's verdict, connection, TLS with its certificate, and authorization. With names only
those destinations are looked at.

Nothing is sent to a destination: each is connected to as a delivery would, through egress.proxy if there is one, and
left after the TLS handshake. For OAuth 2.0 a token is fetched, and of listen.https the directory of the certificate
authority. Nothing is written to the store or to any other place, and it does not matter whether Postern runs. Run it
as the account and in the place (container, unit) that Postern runs in, for rights and limits are those of this process.

Exit codes: 0 nothing is wrong, though there may be warnings; 1 there are problems; 2 the config or the token cannot be used.`,
		Example:           "  postern doctor\n  postern doctor alerts --json",
		ValidArgsFunction: p.completeDestinations,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.doctor(cmd.Context(), newDoctor(p), args)
		},
	}
	p.adminFlags(cmd)
	return cmd
}

// doctor looks at everything around a relay and collects findings.
type doctor struct {
	*program
	host     host
	now      func() time.Time
	client   admin.Client // of the Postern that may run; only for a config that can be used
	findings []relay.Finding
}

// doctorReport is what --json prints.
type doctorReport struct {
	Config   string          `json:"config"`
	OK       bool            `json:"ok"`
	Problems int             `json:"problems"`
	Warnings int             `json:"warnings"`
	Findings []relay.Finding `json:"findings"`
}

func newDoctor(p *program) *doctor { return &doctor{program: p, host: thisHost(), now: time.Now} }

func (d *doctor) add(check string, status relay.Severity, detail, advice string) {
	d.findings = append(d.findings, relay.Finding{Check: check, Status: status, Detail: detail, Advice: advice})
}

func (p *program) doctor(ctx context.Context, d *doctor, only []string) error {
	cfg, plan, err := relay.Load(p.configPath, p.environ)
	if err != nil {
		d.unusable(err)
		cfg, _ = config.Load(p.configPath, p.environ) // what can be read of it
	} else {
		for _, name := range only {
			if _, ok := cfg.Destinations[name]; !ok {
				return usageError{fmt.Errorf("there is no destination %q in %s", clean(name), clean(p.configPath))}
			}
		}
		if d.client, err = p.adminClient(); err != nil {
			return err
		}
		d.usable(cfg)
	}
	if cfg != nil {
		d.secrets(cfg)
		if !cfg.Faulty("store") {
			d.folder(cfg)
		}
		d.openFiles(cfg)
	}
	d.clock()
	destinations := 0
	if cfg != nil {
		destinations = len(cfg.Destinations)
	}
	d.memory(destinations)
	if plan != nil {
		runs, trouble := d.store(ctx, cfg, plan)
		served := d.listen(ctx, cfg, runs)
		how := relay.Examination{Only: only, Own: listeners(cfg), Now: d.now, Served: served, Trouble: trouble}
		if len(only) == 0 {
			how.Only = nil
			d.findings = append(d.findings, plan.ExamineHTTPS(ctx, how)...)
		}
		d.findings = append(d.findings, plan.Examine(ctx, how)...)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	problems := d.count(relay.Problem)
	if d.json {
		report := doctorReport{d.configPath, problems == 0, problems, d.count(relay.Warning), d.findings}
		if err := d.printJSON(report); err != nil {
			return err
		}
	} else {
		d.print()
	}
	switch {
	case plan == nil:
		return usageError{errReported}
	case problems > 0:
		return errReported
	}
	return nil
}

func (d *doctor) count(status relay.Severity) int {
	n := 0
	for _, f := range d.findings {
		if f.Status == status {
			n++
		}
	}
	return n
}

// unusable says each fault of the config.
func (d *doctor) unusable(err error) {
	var faults config.ErrorList
	if !errors.As(err, &faults) {
		d.add("config", relay.Problem, err.Error(), "name another file with --config, or make this one readable")
		return
	}
	for _, fault := range faults {
		d.add("config", relay.Problem, fault.Error(), "")
	}
}

// usable says what a good config is about.
func (d *doctor) usable(cfg *config.Config) {
	enabled := 0
	for _, destination := range cfg.Destinations {
		if destination.Enabled {
			enabled++
		}
	}
	text := fmt.Sprintf("%s is valid: %s", d.configPath, count(len(cfg.Destinations), "destination"))
	if off := len(cfg.Destinations) - enabled; off > 0 {
		text += fmt.Sprintf(", %d of them not enabled", off)
	}
	d.add("config", relay.Fine, text, "")
	if info, err := d.host.stat(d.configPath); err == nil && info.Mode().Perm()&0o002 != 0 {
		d.add("config", relay.Warning, fmt.Sprintf("every user of this machine may write %s, and with it say where messages go", d.configPath),
			"chmod o-w "+d.configPath)
	}
}

// secrets looks at who may read the files of secrets.
func (d *doctor) secrets(cfg *config.Config) {
	for _, w := range cfg.Warnings() {
		check := "secrets"
		if w.Path == "listen.ingest" || w.Path == "listen.admin" {
			check = strings.TrimPrefix(w.Path, "listen.") // it is about the address
		}
		detail, advice := partsOf(w.Error())
		d.add(check, relay.Warning, detail, advice)
	}
	keys := map[string]bool{}
	for _, destination := range cfg.Destinations {
		keys[destination.TLS.KeyFile] = true
	}
	if cfg.Listen.HTTPS != nil {
		keys[cfg.Listen.HTTPS.KeyFile] = true
	}
	delete(keys, "")
	for _, name := range sortedNames(keys) {
		info, err := d.host.stat(name)
		switch {
		case err != nil: // the config has a fault for it
		case info.Mode().Perm()&0o004 != 0:
			d.add("secrets", relay.Warning, fmt.Sprintf("every user of this machine may read the key in %s", name), "chmod o= "+name)
		}
	}
	if !slices.ContainsFunc(d.findings, func(f relay.Finding) bool { return f.Check == "secrets" }) {
		if n := len(cfg.Files()) + len(keys); n > 0 {
			d.add("secrets", relay.Fine, fmt.Sprintf("%s with secrets, closed to other users", count(n, "file")), "")
		}
	}
}

// partsOf takes a text apart that says what is wrong, a semicolon, what to do.
func partsOf(text string) (detail, advice string) {
	at := strings.LastIndex(text, "; ")
	if at < 0 {
		return text, ""
	}
	return text[:at], text[at+2:]
}

func sortedNames(set map[string]bool) []string {
	var names []string
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// listeners returns the TCP addresses of the config that are written as numbers, so that a destination that is Postern
// itself is found. A host of nothing is all of them.
func listeners(cfg *config.Config) []netip.AddrPort {
	var own []netip.AddrPort
	addresses := []string{cfg.Listen.Ingest, cfg.Listen.Admin}
	if cfg.Listen.HTTPS != nil {
		addresses = append(addresses, cfg.Listen.HTTPS.Address)
	}
	for _, address := range addresses {
		if strings.HasPrefix(address, ":") {
			address = "[::]" + address
		}
		if a, err := netip.ParseAddrPort(address); err == nil {
			own = append(own, a)
		}
	}
	return own
}

// print writes the findings for a person: those of Postern itself, then each destination's.
func (d *doctor) print() {
	s := d.screen()
	style := map[relay.Severity]cell{
		relay.Fine: {"ok", s.good}, relay.Warning: {"warning", s.warn}, relay.Problem: {"problem", s.bad},
	}
	width := 0
	for _, f := range d.findings {
		width = max(width, len(f.Check))
	}
	destination := ""
	for _, f := range d.findings {
		if f.Destination != destination {
			destination = f.Destination
			s.heading(clean(destination))
		}
		mark := style[f.Status]
		s.line(fmt.Sprintf("%s  %-*s  %s", mark.style.Render(fmt.Sprintf("%-7s", mark.text)), width, f.Check, clean(f.Detail)))
		if f.Advice != "" {
			s.line(fmt.Sprintf("%*s→ %s", 7+2+width+2, "", clean(f.Advice)))
		}
	}
	problems, warnings := d.count(relay.Problem), d.count(relay.Warning)
	s.line(fmt.Sprintf("\n%s, %s", count(problems, "problem"), count(warnings, "warning")))
}

// absolute is the path as others can use it.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
