package postern_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// compile reads a schema of testdata/schemas; see the README there for where each is from.
func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "schemas", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("file:///"+name, doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("file:///" + name)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// documents reads the YAML documents of a file.
func documents(t *testing.T, path string) []map[string]any {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var docs []map[string]any
	for dec := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var doc map[string]any
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		docs = append(docs, doc)
	}
}

// at returns what stands at a path of keys and indexes, or nil.
func at(doc any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := doc.(map[string]any)
			doc = m[step]
		case int:
			l, _ := doc.([]any)
			if step >= len(l) {
				return nil
			}
			doc = l[step]
		}
	}
	return doc
}

// wantAt compares what stands at a path.
func wantAt(t *testing.T, doc any, want any, path ...any) {
	t.Helper()
	if got := at(doc, path...); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v: got %v, want %v", path, got, want)
	}
}

func TestComposeExample(t *testing.T) {
	schema := compile(t, "compose-spec.json")
	docs := documents(t, filepath.Join("examples", "docker-compose", "compose.yaml"))
	if len(docs) != 1 {
		t.Fatalf("got %d documents, want one", len(docs))
	}
	doc := docs[0]
	t.Run("it is what the Compose Specification asks for", func(t *testing.T) {
		if err := schema.Validate(doc); err != nil {
			t.Error(err)
		}
	})
	service := at(doc, "services", "postern")
	t.Run("it shares the app's loopback and nothing else", func(t *testing.T) {
		wantAt(t, service, "service:app", "network_mode")
		wantAt(t, service, nil, "ports")
		wantAt(t, service, true, "read_only")
		wantAt(t, service, []any{"ALL"}, "cap_drop")
		wantAt(t, service, []any{"no-new-privileges:true"}, "security_opt")
	})
	t.Run("what it refers to is there", func(t *testing.T) {
		for _, list := range []string{"secrets", "configs"} {
			for name, from := range at(doc, list).(map[string]any) {
				file, _ := at(from, "file").(string)
				if list == "configs" {
					if _, err := os.Stat(filepath.Join("examples", "docker-compose", file)); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				if !strings.HasPrefix(file, "./") {
					t.Errorf("%s: got file %q, want one beside compose.yaml", name, file)
				}
			}
		}
		raw, err := os.ReadFile(filepath.Join("examples", "docker-compose", "postern.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range mounted.FindAllSubmatch(raw, -1) {
			if secret := strings.TrimPrefix(string(found[1]), "/run/secrets/"); at(doc, "secrets", secret) == nil {
				t.Errorf("the config asks for %s, and compose.yaml mounts no such secret", found[1])
			}
		}
	})
	t.Run("the schema refuses what is wrong", func(t *testing.T) {
		service.(map[string]any)["read_ony"] = true
		if err := schema.Validate(doc); err == nil {
			t.Error("a misspelt key is let pass: this tests nothing")
		}
	})
}

func TestKubernetesExample(t *testing.T) {
	schema := compile(t, "kubernetes.json")
	kinds := map[string]map[string]any{}
	for i, doc := range documents(t, filepath.Join("examples", "kubernetes", "app.yaml")) {
		if err := schema.Validate(doc); err != nil {
			t.Errorf("document %d: %v", i+1, err)
		}
		kinds[fmt.Sprint(doc["kind"])] = doc
	}
	if got, want := slices.Sorted(maps.Keys(kinds)), []string{"ConfigMap", "Secret", "StatefulSet"}; !slices.Equal(got, want) {
		t.Fatalf("got kinds %v, want %v", got, want)
	}
	pod := at(kinds["StatefulSet"], "spec", "template", "spec")
	sidecar := at(pod, "initContainers", 0)
	t.Run("Postern is a native sidecar", func(t *testing.T) {
		wantAt(t, sidecar, "Always", "restartPolicy")
		for _, probe := range []string{"startupProbe", "readinessProbe"} {
			wantAt(t, sidecar, []any{"/postern", "healthcheck"}, probe, "exec", "command")
		}
		wantAt(t, sidecar, nil, "ports")
	})
	t.Run("it may do next to nothing", func(t *testing.T) {
		wantAt(t, sidecar, false, "securityContext", "allowPrivilegeEscalation")
		wantAt(t, sidecar, true, "securityContext", "readOnlyRootFilesystem")
		wantAt(t, sidecar, []any{"ALL"}, "securityContext", "capabilities", "drop")
		wantAt(t, pod, true, "securityContext", "runAsNonRoot")
		wantAt(t, pod, 65532, "securityContext", "runAsUser")
		wantAt(t, pod, 65532, "securityContext", "fsGroup")
		wantAt(t, pod, "RuntimeDefault", "securityContext", "seccompProfile", "type")
		wantAt(t, pod, false, "automountServiceAccountToken")
	})
	t.Run("what it mounts is there", func(t *testing.T) {
		volumes := map[string]bool{}
		for _, v := range at(pod, "volumes").([]any) {
			volumes[fmt.Sprint(at(v, "name"))] = true
			if name := at(v, "configMap", "name"); name != nil {
				wantAt(t, kinds["ConfigMap"], name, "metadata", "name")
			}
			if name := at(v, "secret", "secretName"); name != nil {
				wantAt(t, kinds["Secret"], name, "metadata", "name")
			}
		}
		for _, claim := range at(kinds["StatefulSet"], "spec", "volumeClaimTemplates").([]any) {
			volumes[fmt.Sprint(at(claim, "metadata", "name"))] = true
		}
		places := map[string]bool{}
		for _, m := range at(sidecar, "volumeMounts").([]any) {
			if !volumes[fmt.Sprint(at(m, "name"))] {
				t.Errorf("mount %v: there is no such volume", m)
			}
			if at(m, "subPath") != nil {
				t.Errorf("mount %v: a subPath never changes in a running pod", m)
			}
			places[fmt.Sprint(at(m, "mountPath"))] = true
		}
		if !places["/data"] {
			t.Error("nothing is mounted at /data, where the store is")
		}
	})
	t.Run("its config can be loaded, with the secrets that are mounted", func(t *testing.T) {
		text := fmt.Sprint(at(kinds["ConfigMap"], "data", "postern.yaml"))
		for _, found := range mounted.FindAllStringSubmatch(text, -1) {
			if at(kinds["Secret"], "stringData", strings.TrimPrefix(found[1], "/etc/postern/secrets/")) == nil {
				t.Errorf("the config asks for %s, and the Secret has no such key", found[1])
			}
		}
		file := filepath.Join(t.TempDir(), "postern.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		loadConfig(t, file)
	})
	t.Run("the schema refuses what is wrong", func(t *testing.T) {
		for _, spoil := range []func(){
			func() { sidecar.(map[string]any)["restartPolicy"] = 1 },
			func() { sidecar.(map[string]any)["restartpolicy"] = "Always" },
		} {
			before := maps.Clone(sidecar.(map[string]any))
			spoil()
			if err := schema.Validate(kinds["StatefulSet"]); err == nil {
				t.Error("a wrong type or a misspelt key is let pass: this tests nothing")
			}
			clear(sidecar.(map[string]any))
			maps.Copy(sidecar.(map[string]any), before)
		}
	})
}

// unit reads a unit file of systemd: the values of each key of each section, in their order.
func unit(t *testing.T, name string) map[string]map[string][]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("examples", "systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	sections, section := map[string]map[string][]string{}, ""
	header := regexp.MustCompile(`^\[([A-Z][a-z]+)\]$`)
	for n, line := range strings.Split(string(raw), "\n") {
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if found := header.FindStringSubmatch(line); found != nil {
			section = found[1]
			sections[section] = map[string][]string{}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section == "" || strings.TrimSpace(key) != key {
			t.Fatalf("%s:%d: %q is no assignment in a section", name, n+1, line)
		}
		sections[section][key] = append(sections[section][key], value)
	}
	return sections
}

func TestSystemdExample(t *testing.T) {
	service := unit(t, "postern.service")["Service"]
	t.Run("the service is closed as far as it can be", func(t *testing.T) {
		for key, want := range map[string]string{
			"DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "",
			"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes", "PrivateUsers": "yes",
			"ProtectClock": "yes", "ProtectControlGroups": "yes", "ProtectHostname": "yes", "ProtectKernelLogs": "yes",
			"ProtectKernelModules": "yes", "ProtectKernelTunables": "yes", "ProtectProc": "invisible", "LockPersonality": "yes",
			"MemoryDenyWriteExecute": "yes", "RestrictNamespaces": "yes", "RestrictRealtime": "yes", "RestrictSUIDSGID": "yes",
			"SystemCallArchitectures": "native", "UMask": "0077", "LimitCORE": "0", "StateDirectoryMode": "0700",
			"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
		} {
			if got := service[key]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: got %q, want %q", key, got, want)
			}
		}
		if got, want := strings.Join(service["SystemCallFilter"], " "), "@system-service ~@privileged @resources"; got != want {
			t.Errorf("SystemCallFilter: got %q, want %q", got, want)
		}
	})
	t.Run("it starts the program as its documentation says", func(t *testing.T) {
		for key, want := range map[string]string{
			"Type": "notify", "ExecStart": "/usr/local/bin/postern run --config /etc/postern/postern.yaml --drain 20s",
			"ExecReload": "/bin/kill -HUP $MAINPID", "Environment": "POSTERN_STORE_PATH=/var/lib/postern", "StateDirectory": "postern",
			"WatchdogSec": "60s", "RestartPreventExitStatus": "2 3 4 6",
		} {
			if got := service[key]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: got %q, want %q", key, got, want)
			}
		}
	})
	t.Run("its config asks for credentials that it loads", func(t *testing.T) {
		raw, err := os.ReadFile(filepath.Join("examples", "systemd", "postern.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		loaded := map[string]bool{}
		for _, c := range service["LoadCredential"] {
			name, _, _ := strings.Cut(c, ":")
			loaded["/run/credentials/postern.service/"+name] = true
		}
		found := mounted.FindAllSubmatch(raw, -1)
		if len(found) == 0 {
			t.Error("it asks for none: this tests nothing")
		}
		for _, f := range found {
			if !loaded[string(f[1])] {
				t.Errorf("%s is not loaded", f[1])
			}
		}
	})
	t.Run("each socket has a name that Postern knows, and is the service's", func(t *testing.T) {
		for _, name := range []string{"ingest", "admin"} {
			socket := unit(t, "postern-"+name+".socket")["Socket"]
			if got := socket["FileDescriptorName"]; len(got) != 1 || got[0] != name {
				t.Errorf("got name %q, want %q", got, name)
			}
			if got := socket["ListenStream"]; len(got) != 1 || !strings.HasPrefix(got[0], "127.0.0.1:") {
				t.Errorf("%s: got %q, want one loopback address", name, got)
			}
			if got := socket["Service"]; len(got) != 1 || got[0] != "postern.service" {
				t.Errorf("%s: got service %q", name, got)
			}
			if !slices.Contains(strings.Fields(unit(t, "postern.service")["Unit"]["Requires"][0]), "postern-"+name+".socket") {
				t.Errorf("the service does not require postern-%s.socket", name)
			}
		}
	})
	t.Run("the socket for other hosts is there for who wants it", func(t *testing.T) {
		socket := unit(t, "postern-https.socket")["Socket"]
		for key, want := range map[string]string{"ListenStream": "443", "FileDescriptorName": "https", "Service": "postern.service"} {
			if got := socket[key]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: got %q, want %q", key, got, want)
			}
		}
		if strings.Contains(unit(t, "postern.service")["Unit"]["Requires"][0], "https") {
			t.Error("the service requires it, so nobody could do without")
		}
	})
	t.Run("systemd itself has nothing to say against it", func(t *testing.T) {
		analyze, err := exec.LookPath("systemd-analyze")
		if err != nil {
			// What is above has been looked at; this only asks somebody who knows better.
			fmt.Fprintln(os.Stderr, "NOT RUN: systemd-analyze is not installed, so only our own reading of the units was tested")
			return
		}
		units := analyzable(t)
		out, err := exec.CommandContext(t.Context(), analyze, append([]string{"verify", "--recursive-errors=no"}, units...)...).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("verify: %v\n%s", err, out)
		}
		out, err = exec.CommandContext(t.Context(), analyze, "security", "--no-pager", "--offline=true", "--threshold=15", units[0]).CombinedOutput()
		if err != nil {
			t.Errorf("more is open than 1.5 of 10: %v\n%s", err, out)
		}
	})
}

// analyzable copies the units, with a program that is there in place of the one that is to be installed.
func analyzable(t *testing.T) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"postern.service", "postern-ingest.socket", "postern-admin.socket", "postern-https.socket"} {
		raw, err := os.ReadFile(filepath.Join("examples", "systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		raw = bytes.ReplaceAll(raw, []byte("/usr/local/bin/postern"), []byte("/bin/true"))
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}
