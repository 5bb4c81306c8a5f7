package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/postern-relay/postern/relay/receiver"
)

// Tokens of the relay that the scripts share. The second is good for one destination, and stands before the first in the
// config, so that whoever takes just the first of the list posts nothing else.
const (
	scriptToken      = "a-token-of-the-scripts-0001"
	scriptBounded    = "a-token-of-the-scripts-0002"
	scriptAdminToken = "a-token-of-the-scripts-0003"
)

// TestRelayScripts runs the commands that need a running relay, as a person types them: each file in testdata/relay is
// a session. They share one relay and its receivers, so each has destinations of its own.
func TestRelayScripts(t *testing.T) {
	good, bad := newFarEnd(t, "127.0.0.81", "good.test"), newFarEnd(t, "127.0.0.82", "bad.test")
	bad.SetFault(receiver.Fault{Kind: receiver.Status, Status: 503})
	dir := t.TempDir()
	_, admin := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	writeFile(t, config, fmt.Sprintf(`
listen:
  ingest: "unix://%[1]s"
  admin: "%[2]s"
  tokens: [{name: bounded, token: %[9]s, destinations: [bounded]}, %[3]s]
  admin_tokens: [%[10]s]
store: {path: %[4]q}
egress: {resolve: {good.test: 127.0.0.81, bad.test: 127.0.0.82}}
defaults:
  allow_networks: [127.0.0.0/8]
  retry: {schedule: [0s]}
  sign: [{standard: {secrets: [%[7]s, %[8]s]}}]
destinations:
  sent: {url: "https://good.test/sent", tls: {ca_file: %[6]q}, events: ["sent.*"], forward_path: true, forward_headers: [X-Team]}
  unsent: {url: "https://bad.test/unsent", tls: {ca_file: %[5]q}, events: ["unsent.*"]}
  bounded: {url: "https://good.test/bounded", tls: {ca_file: %[6]q}}
  tried: {url: "https://good.test/tried?token=canary-5e1f", tls: {ca_file: %[6]q}}
  untried: {url: "https://bad.test/untried", tls: {ca_file: %[5]q}, auth: {bearer: {token: canary-77aa21}}}
  listed: {url: "https://good.test/listed", tls: {ca_file: %[6]q}, events: ["listed.*"]}
  unlisted: {url: "https://bad.test/unlisted", tls: {ca_file: %[5]q}, events: ["listed.*"]}
  held: {url: "https://good.test/held", tls: {ca_file: %[6]q}}
  broken: {url: "https://bad.test/broken", tls: {ca_file: %[5]q}}
  bulk: {url: "https://bad.test/bulk", tls: {ca_file: %[5]q}}
  off: {url: "https://bad.test/off", enabled: false}
`, filepath.Join(dir, "in.sock"), admin, scriptToken, filepath.Join(dir, "data"), bad.caFile, good.caFile, good.secret, bad.secret,
		scriptBounded, scriptAdminToken))
	relay := startPostern(t, admin, "run", "--config", config)
	t.Cleanup(func() { relay.stop(t) }) // after the scripts, which run at the same time
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "relay"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", os.Getenv("GORACE"))
			env.Setenv("TZ", "UTC")
			env.Setenv("POSTERN_CONFIG", config)
			return nil
		},
		RequireExplicitExec: true,
		Cmds:                scriptCommands(),
	})
}
