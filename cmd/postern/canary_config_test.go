package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// The ways in which a secret gets into the config.
const (
	literally = "literal"
	byEnv     = "env"
	byFile    = "file"
)

// aviary is a config with a canary wherever a secret can be, and the files and the environment that it refers to. Its
// exported fields are for the template of the config.
type aviary struct {
	*canaries
	*testing.T
	dir   string
	env   []string
	ca    *receiver.CA
	files map[string]func(round int) string // what makes the content of each ${file:…}
	made  map[string]string                 // by way and name, what stands in the config

	Ingest, Admin, HTTPS, Data  string
	Far, Refused, Proxy         string // where the far end is, where nobody is, and the proxy
	AuthorityPort, Collector    string
	Client, ClientKey           string // files
	Certificate, CertificateKey string // of the https listener; empty for one that is obtained
	StoreKeys                   string
}

func newAviary(t *testing.T) *aviary {
	t.Helper()
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := receiver.NewCA("canaries")
	if err != nil {
		t.Fatal(err)
	}
	a := &aviary{
		canaries: &canaries{}, T: t, dir: t.TempDir(), ca: ca, files: map[string]func(int) string{}, made: map[string]string{},
		env: slices.Clone(os.Environ()), Ingest: ports[0], Admin: ports[1], HTTPS: ports[2],
	}
	a.Data = a.path("data")
	other, err := receiver.NewCA("somebody else")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, a.path("ca.pem"), string(ca.PEM()))
	writeFile(t, a.path("other-ca.pem"), string(other.PEM()))
	client, err := ca.IssueClient("canary")
	a.Client, a.ClientKey = a.certificate("client", client, err)
	a.env = append(a.env, "POSTERN_DESTINATIONS_OVERRIDDEN_URL=https://far.test/overridden/"+a.secret("path of an override", "-"))
	var keys []string
	for _, way := range []string{literally, byEnv, byFile} {
		keys = append(keys, yamlText(a.put(way, "store key", a.storeKey)))
	}
	a.StoreKeys = "[" + strings.Join(keys, ", ") + "]"
	return a
}

func (a *aviary) path(name string) string { return filepath.Join(a.dir, name) }

// put puts what content makes into the config in one of the ways, and returns what stands there, the same for the same name.
func (a *aviary) put(way, name string, content func(name string) string) string {
	a.Helper()
	name = way + " " + name
	if earlier, ok := a.made[name]; ok {
		return earlier
	}
	switch way {
	case literally:
		a.made[name] = content(name)
	case byEnv:
		variable := fmt.Sprintf("CANARY_%d", len(a.env))
		a.env = append(a.env, variable+"="+content(name))
		a.made[name] = "${env:" + variable + "}"
	case byFile:
		file := a.path(fmt.Sprintf("secret-%d", len(a.files)))
		a.files[file] = func(round int) string { return content(fmt.Sprintf("%s %d", name, round)) }
		writeFile(a.T, file, a.files[file](0)+"\n")
		a.made[name] = "${file:" + file + "}"
	default:
		a.Fatalf("no way %q", way)
	}
	return a.made[name]
}

// rotate puts new canaries into all files, but for the key of the store: that changes with a restart.
func (a *aviary) rotate(round int) {
	a.Helper()
	for file, content := range a.files {
		writeFile(a.T, file+".new", content(round)+"\n")
		if err := os.Rename(file+".new", file); err != nil {
			a.Fatal(err)
		}
	}
}

// signingKey makes a key of a kind that postern secret new makes.
func (a *aviary) signingKey(kind string) func(name string) string {
	return func(name string) string {
		k, err := sign.NewKey(kind)
		if err != nil {
			a.Fatal(err)
		}
		if block, _ := pem.Decode([]byte(k.Secret)); block != nil {
			private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				a.Fatal(err)
			}
			return a.key(name, k.Secret, privateBytes(a, private))
		}
		coded := k.Secret[strings.IndexAny(k.Secret, "_:")+1:]
		raw, err := base64.StdEncoding.DecodeString(coded)
		if err != nil {
			a.Fatal(err)
		}
		return a.key(name, k.Secret, []byte(coded), raw)
	}
}

func privateBytes(tb testing.TB, private any) []byte {
	tb.Helper()
	switch k := private.(type) {
	case ed25519.PrivateKey:
		return k.Seed()
	case *ecdsa.PrivateKey:
		raw, err := k.Bytes()
		if err != nil {
			tb.Fatal(err)
		}
		return raw
	}
	tb.Fatalf("a key of type %T", private)
	return nil
}

func (a *aviary) storeKey(name string) string {
	text := store.NewKey().Text()
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		a.Fatal(err)
	}
	return a.key(name, text, []byte(strings.TrimRight(text, "=")), raw)
}

func (a *aviary) accountKey(name string) string {
	raw := []byte(word(name) + word(name+" too"))
	text := base64.RawURLEncoding.EncodeToString(raw)
	return a.key(name, text, []byte(text), raw)
}

// certificate writes a certificate and its key, which is a canary, and returns the names of the files.
func (a *aviary) certificate(name string, cert tls.Certificate, err error) (certFile, keyFile string) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
	chain, key, err := receiver.EncodePEM(cert)
	if err != nil {
		a.Fatal(err)
	}
	a.key("key of "+name, string(key), privateBytes(a, cert.PrivateKey))
	certFile, keyFile = a.path(name+".pem"), a.path(name+"-key.pem")
	writeFile(a.T, certFile, string(chain))
	writeFile(a.T, keyFile, string(key))
	return certFile, keyFile
}

// yamlText quotes a text: YAML reads what JSON does.
func yamlText(s string) string { return `"` + jsonText(s) + `"` }

// kind returns what makes a canary of a kind.
func (a *aviary) kind(kind string) func(name string) string {
	for odd, text := range map[string]string{
		"token":  "-._~+/",
		"text":   ` "\<&>/+%'é;= `,
		"header": ` "\<&>/+%'= `,
		"path":   "-",
		"URL":    "%2F%22%26%C3%A9",
	} {
		if odd == kind {
			return func(name string) string { return a.secret(name, text) }
		}
	}
	if kind == "account key" {
		return a.accountKey
	}
	return a.signingKey(kind)
}

// config returns the file as it is to be now.
func (a *aviary) config() string {
	a.Helper()
	part := func(way, name, kind string) string { return a.put(way, name, a.kind(kind)) }
	t, err := template.New("postern.yaml.tmpl").Delims("[[", "]]").Funcs(template.FuncMap{
		"ways":   func() []string { return []string{literally, byEnv, byFile} },
		"kinds":  func() []string { return []string{"header", "bearer", "basic", "api-key", "oauth2"} },
		"part":   part,
		"secret": func(way, name, kind string) string { return yamlText(part(way, name, kind)) },
	}).ParseFiles(filepath.Join("testdata", "canary", "postern.yaml.tmpl"))
	if err != nil {
		a.Fatal(err)
	}
	var out strings.Builder
	if err := t.Execute(&out, a); err != nil {
		a.Fatal(err)
	}
	return out.String()
}

// secretKeys returns the keys of a type that hold secrets, such as listen.tokens[].token.
func secretKeys(t reflect.Type, path string) []string {
	if t == reflect.TypeFor[config.Secret]() {
		return []string{path}
	}
	var keys []string
	switch t.Kind() {
	case reflect.Pointer:
		return secretKeys(t.Elem(), path)
	case reflect.Slice:
		return secretKeys(t.Elem(), path+"[]")
	case reflect.Map:
		return secretKeys(t.Elem(), path+".*")
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if key := f.Tag.Get("yaml"); f.IsExported() && key != "-" && key != "defaults" { // which are the keys of a destination
				keys = append(keys, secretKeys(f.Type, strings.TrimPrefix(path+"."+key, "."))...)
			}
		}
	}
	return keys
}

// heldSecrets calls see for each secret of a config that is set.
func heldSecrets(v reflect.Value, path string, see func(path string, s config.Secret)) {
	if s, ok := v.Interface().(config.Secret); ok {
		if s.IsSet() {
			see(path, s)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			heldSecrets(v.Elem(), path, see)
		}
	case reflect.Slice:
		for i := range v.Len() {
			heldSecrets(v.Index(i), path+"[]", see)
		}
	case reflect.Map:
		for _, item := range v.Seq2() {
			heldSecrets(item, path+".*", see)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if key := v.Type().Field(i).Tag.Get("yaml"); v.Type().Field(i).IsExported() && key != "-" {
				heldSecrets(v.Field(i), strings.TrimPrefix(path+"."+key, "."), see)
			}
		}
	}
}

// checkComplete fails the test for a key that can hold a secret and holds no canary, and for a secret that is none.
func (a *aviary) checkComplete(file string) {
	a.Helper()
	cfg, err := config.Load(file, a.env)
	if err != nil {
		a.Fatal(err)
	}
	h := newHunter(a.all())
	literal, referenced := map[string]bool{}, map[string]bool{}
	heldSecrets(reflect.ValueOf(*cfg), "", func(path string, s config.Secret) {
		if len(h.find([]byte(s.Reveal()))) == 0 {
			a.Errorf("%s has a secret that is no canary", path)
		}
		if s.Written() == s.Reveal() {
			literal[path] = true
		} else {
			referenced[path] = true
		}
	})
	for _, key := range secretKeys(reflect.TypeFor[config.Config](), "") {
		once := key == "listen.https.acme.external_account.hmac_key" // there is one in a file
		if !referenced[key] || !literal[key] && !once {
			a.Errorf("%s is a secret without a canary, or not with one of its own and one by reference: put it into testdata/canary", key)
		}
	}
}
