package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// checkOneOf reports a mapping that has none of its keys, or more than one.
func (d *decoder) checkOneOf(group oneOf, pairs []pair, fields []field, n *yaml.Node, path string) {
	var set []pair
	for _, p := range pairs {
		if hasField(fields, p.key) && !isNull(follow(p.value)) {
			set = append(set, p)
		}
	}
	if len(set) == 0 && len(pairs) > 0 && !hasField(fields, pairs[0].key) {
		return // an unknown key has been reported, and it was probably meant to be the one
	}
	if len(set) == 0 {
		d.src.fail(d.src.placeOf(path, d.at(n)), path, fmt.Sprintf("no %s; write %s", group.oneOf(), orList(keysOf(fields))))
		return
	}
	for _, p := range set[1:] {
		d.src.fail(p.at, join(path, p.key), fmt.Sprintf("contradicts %s; keep one %s", set[0].key, group.oneOf()))
	}
}

// noneWord decodes the word none in place of a mapping.
func (d *decoder) noneWord(n *yaml.Node, v reflect.Value, path string) {
	target := v.Addr().Interface().(optional)
	text, err := d.expand(d.text(n.Value))
	if err != nil || text.value != "none" {
		d.src.fail(d.src.placeOf(path, d.at(n)), path, "must be none or a mapping, such as "+target.example())
		return
	}
	target.setNone()
}

func (r *Retry) setNone()     { *r = Retry{None: true, MaxAge: r.MaxAge} }
func (r *Retry) isNone() bool { return r.None }
func (*Retry) example() string {
	return "{schedule: [0s, 1m, 5m]} or {attempts: 5, first: 10s}"
}

func (b *Breaker) setNone()     { *b = Breaker{None: true} }
func (b *Breaker) isNone() bool { return b.None }
func (*Breaker) example() string {
	return "{failures: 5, probe_every: 30s}"
}

// checkRetry reports keys that contradict one another, and completes the form that was chosen.
func (d *decoder) checkRetry(retry *Retry, keys map[string]pair, path string) {
	_, listed := keys["schedule"]
	growing := false
	for _, key := range []string{"attempts", "first", "max", "factor"} {
		p, ok := keys[key]
		growing = growing || ok
		if ok && listed {
			d.src.fail(p.at, join(path, key), "contradicts schedule; write either schedule, or attempts, first, max and factor")
		}
	}
	if !growing || listed {
		return
	}
	retry.Schedule = nil
	if _, ok := keys["attempts"]; !ok {
		retry.Attempts = 10
	}
	if _, ok := keys["first"]; !ok {
		retry.First = Duration(5 * time.Second)
	}
	if _, ok := keys["max"]; !ok {
		retry.Max = max(Duration(time.Hour), retry.First)
	}
	if _, ok := keys["factor"]; !ok {
		retry.Factor = 2
	}
	if p, ok := keys["max"]; ok && retry.First > retry.Max && !d.src.isFaulty(join(path, "max")) && !d.src.isFaulty(join(path, "first")) {
		d.src.fail(d.src.placeOf(join(path, "max"), p.at), join(path, "max"), fmt.Sprintf("shorter than first, which is %s; write at least that", retry.First))
	}
}

// checkListen holds the listeners against the rules on who may reach them.
func (d *decoder) checkListen() {
	l := &d.cfg.Listen
	d.checkTokens()
	if !d.src.isFaulty("listen.socket_mode") && l.SocketMode&0o600 != 0o600 {
		d.failAt("listen.socket_mode", "its owner could not connect; write 0600, 0660 or 0666")
	}
	ingest, err := parseAddress(l.Ingest)
	switch {
	case d.src.isFaulty("listen.ingest"):
	case err != nil:
		d.failAt("listen.ingest", err.Error())
	case !ingest.local && len(l.Tokens) == 0:
		if !d.src.isFaulty("listen.tokens") {
			d.failAt("listen.ingest", "other hosts could post here; write listen.tokens too, or a loopback address such as 127.0.0.1:8025")
		}
	case !ingest.local:
		d.warnAt("listen.ingest", "tokens and messages cross the network without encryption; let apps on other hosts use listen.https, and listen on loopback")
	}
	admin, adminErr := parseAddress(l.Admin)
	switch {
	case d.src.isFaulty("listen.admin"):
	case adminErr != nil:
		d.failAt("listen.admin", adminErr.Error())
	case !admin.local && len(l.AdminTokens) == 0:
		if !d.src.isFaulty("listen.admin_tokens") {
			d.failAt("listen.admin", "other hosts could reach it; write listen.admin_tokens too, or a loopback address such as 127.0.0.1:8026")
		}
	case err == nil && !d.src.isFaulty("listen.ingest") && collide(ingest, admin):
		d.failAt("listen.admin", "the same port or socket as listen.ingest; write another one")
	case !admin.local:
		d.warnAt("listen.admin", "tokens and history cross the network without encryption; put TLS in front of it, or listen on loopback")
	}
}

// checkDestinations reports what a destination cannot do without.
func (d *decoder) checkDestinations() {
	if len(d.cfg.Destinations) == 0 && !d.src.isFaulty("destinations") {
		d.failAt("destinations", "no destinations; add one, such as destinations: {alerts: {url: https://hooks.example.com/alerts}}")
	}
	for _, name := range d.src.names {
		if key := "destinations." + name + ".url"; d.cfg.Destinations[name].URL == "" && !d.src.isFaulty(key) {
			d.failAt(key, "missing; write url: https://… here or under defaults")
		}
	}
}

func (d *decoder) failAt(path, msg string) { d.src.fail(d.src.nearest(path), path, msg) }

func (d *decoder) warnAt(path, msg string) {
	at := d.src.nearest(path)
	d.src.warnings = append(d.src.warnings, &Error{File: at.file, Line: at.line, Col: at.col, Path: path, Msg: msg})
}

// address is where a listener listens.
type address struct {
	unix  bool
	local bool // only processes of this machine can reach it
	host  string
	port  uint64
}

// parseAddress reads host:port, where host is an IP address, localhost or nothing for all addresses, or
// unix:///path.
func parseAddress(s string) (address, error) {
	if file, ok := strings.CutPrefix(s, "unix://"); ok {
		const longest = 100 // the shortest limit of a socket's path among operating systems is 104
		if !strings.HasPrefix(file, "/") || path.Clean(file) != file || file == "/" {
			return address{}, fmt.Errorf("not the path of a socket; write unix:///run/postern/ingest.sock")
		}
		if len(file) > longest {
			return address{}, fmt.Errorf("the path of the socket is too long; write at most %d bytes", longest)
		}
		return address{unix: true, local: true, host: file}, nil
	}
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, fmt.Errorf("not an address to listen on; write host:port such as 127.0.0.1:8025")
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return address{}, fmt.Errorf("not a port; write a number from 0 to 65535, 0 for any free one")
	}
	a := address{host: host, port: port}
	switch ip, err := netip.ParseAddr(host); {
	case host == "":
	case host == "localhost":
		a.local = true
	case err != nil:
		return address{}, fmt.Errorf("the host is not an IP address; write one such as 127.0.0.1, or localhost")
	default:
		ip = ip.Unmap() // an IPv4 address in IPv6 form binds that one
		a.host, a.local = ip.String(), ip.IsLoopback()
	}
	return a, nil
}

// collide reports whether both cannot be listened on at the same time.
func collide(a, b address) bool {
	every := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	if a.unix || b.unix {
		return a.unix && b.unix && a.host == b.host
	}
	return a.port == b.port && a.port != 0 && (a.host == b.host || every(a.host) || every(b.host))
}
