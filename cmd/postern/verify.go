package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/sign"
)

// envVerifySecret holds a secret for verify.
const envVerifySecret = "POSTERN_VERIFY_SECRET"

// maxKeyFile is the most bytes of a file with a key.
const maxKeyFile = 16 << 10

// verifyFlags are the flags of the command verify.
type verifyFlags struct {
	question    sign.Question
	secretFiles []string
	publicKeys  []string
	headers     []string
	body        string
	method, url string
	at          string
}

func (p *program) verifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check a captured request's signature, and say which byte, key or clock is wrong",
		Long: `Check the signature of a captured request as its receiver would. If it is not valid, say why: a header that
is missing, a clock that is off, a body that was changed and from which byte on, a key that is read in the
wrong way, a signature that is written in the wrong form.

The request is read from FILE or the standard input: start line, headers, an empty line, and the body byte for
byte up to the end. Or it is put together by --header and --body, which also override parts of FILE.

Secrets come from files, one each, or from the environment variable ` + envVerifySecret + `. There is deliberately no
flag for them: arguments stand in the shell's history and in the list of processes, and one that is written
there all the same is not repeated. One line end behind the key in a file does not count. Public keys may be
given as they are, or as the name of a file.

The scheme is recognised by the headers. It can be named: standard, hmac, timestamped, rfc9421, or a profile:
` + strings.Join(sign.Profiles(), ", ") + `.

Exit code 0: valid; 1: not valid; 2: the command line, the request or a key cannot be read.`,
		Example: `  ` + envVerifySecret + `=whsec_… postern verify request.txt
  postern verify --secret-file old.key --secret-file new.key --at 2026-01-02T15:04:05Z < request.txt
  postern verify --public-key whpk_… -H 'webhook-id: msg_1' -H 'webhook-timestamp: 1700000000' \
    -H 'webhook-signature: v1a,…' --body body.json
  postern verify --scheme hmac --header-name X-Signature --prefix sha256= --secret-file key request.txt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := ""
			if len(args) == 1 {
				file = args[0]
			}
			return p.verify(f, file)
		},
	}
	flags, q := cmd.Flags(), &f.question
	flags.StringArrayVar(&f.secretFiles, "secret-file", nil, "file with a secret; may be repeated")
	flags.StringArrayVar(&f.publicKeys, "public-key", nil, "public key: whpk_… or a file with one or with PEM; may be repeated")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "header of the request, as Name: value; may be repeated")
	flags.StringVar(&f.body, "body", "", "file with the body; - is the standard input")
	flags.StringVar(&f.method, "method", "", "method of the request, where there is no start line")
	flags.StringVar(&f.url, "url", "", "URL as the sender has it, if it cannot be told from start line and Host")
	flags.StringVar(&q.Scheme, "scheme", "", "scheme or profile; without it the headers tell")
	flags.StringVar(&q.Header, "header-name", "", "header with the signature (hmac, timestamped, some profiles)")
	flags.StringVar(&q.TimestampHeader, "timestamp-header", "", "header with the time that is signed (profile grafana)")
	flags.StringVar(&q.Prefix, "prefix", "", "text in front of the signature (hmac)")
	flags.StringVar(&q.Algorithm, "algorithm", "", "sha256, sha512, sha1 (hmac); hmac-sha256, ed25519, ecdsa-p256-sha256 (rfc9421)")
	flags.StringVar(&q.Encoding, "encoding", "", "hex or base64 (hmac)")
	flags.StringVar(&q.Label, "label", "", "the signature to look at (rfc9421); without it the one that fits the keys best")
	flags.StringVar(&f.at, "at", "", "the receiver's time, RFC 3339 or Unix seconds; without it now")
	flags.DurationVar(&q.Tolerance, "tolerance", sign.Tolerance, "how far the timestamp may be from that time")
	return cmd
}

func (p *program) verify(f verifyFlags, file string) error {
	request, err := p.captured(f, file)
	if err != nil {
		return usageError{err}
	}
	q := f.question
	if q.Keys, err = p.verifyKeys(f); err != nil {
		return usageError{err}
	}
	if q.Now, err = parseInstant(f.at); err != nil {
		return usageError{err}
	}
	if q.Tolerance <= 0 {
		return usageError{errors.New("--tolerance must be longer than 0s")}
	}
	d, err := sign.Diagnose(request, q)
	if err != nil {
		return usageError{err}
	}
	if p.json {
		if err := p.printJSON(d); err != nil {
			return err
		}
	} else {
		p.printDiagnosis(d, len(q.Keys))
	}
	if !d.Valid {
		return errReported
	}
	return nil
}

// captured puts the request together.
func (p *program) captured(f verifyFlags, file string) (sign.Request, error) {
	r := sign.Request{Header: http.Header{}, URL: &url.URL{Scheme: "https", Path: "/"}}
	whole := file != "" || len(f.headers) == 0
	if whole && file == "" {
		file = "-"
	}
	if whole {
		if file == "-" && f.body == "-" {
			return r, errors.New("request and body cannot both come from the standard input")
		}
		raw, err := p.readInput(file, maxCapture)
		if err != nil {
			return r, err
		}
		if r, err = parseCapture(raw); err != nil {
			return r, fmt.Errorf("read the request: %w", err)
		}
	}
	given := http.Header{}
	for _, line := range f.headers {
		if err := addField(given, line); err != nil {
			return r, fmt.Errorf("--header: %w", err)
		}
	}
	for name, values := range given {
		r.Header[name] = values
	}
	if f.body != "" {
		var err error
		if r.Body, err = p.readInput(f.body, maxCapture); err != nil {
			return r, err
		}
	}
	if f.method != "" {
		r.Method = f.method
	}
	if r.Method == "" {
		r.Method = http.MethodPost
	}
	if host := given.Get("Host"); host != "" {
		r.URL.Host = host
	}
	if f.url != "" {
		u, err := url.Parse(f.url)
		if err != nil || u.Host == "" || u.Scheme == "" {
			return r, errors.New("--url is not a whole URL; write one like https://example.com/hook")
		}
		r.URL = u
	}
	return r, nil
}

// readInput reads a file, or the standard input for -.
func (p *program) readInput(name string, most int64) ([]byte, error) {
	in := p.stdin
	if name != "-" {
		file, err := os.Open(name)
		switch {
		case err != nil && looksSecret(name):
			return nil, errSecretArgument
		case err != nil:
			return nil, err
		}
		defer file.Close()
		in = file
	}
	raw, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(raw)) > most {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, most)
	}
	return raw, nil
}

// errSecretArgument is for a secret that stands on the command line where the name of a file belongs. Nothing repeats it.
var errSecretArgument = errors.New("there is no such file, and the argument looks like a secret; write the name of a file " +
	"that holds it, and replace a secret that has been on a command line")

// looksSecret reports whether an argument is a secret rather than the name of a file.
func looksSecret(s string) bool {
	for _, mark := range []string{"whsec_", "whsk_", "base64:", "-----BEGIN "} {
		if strings.Contains(s, mark) {
			return true
		}
	}
	return false
}

// isPublicKey reports whether the value of --public-key is the key itself.
func isPublicKey(s string) bool {
	return strings.HasPrefix(s, "whpk_") || strings.HasPrefix(s, "-----BEGIN PUBLIC KEY-----") && !strings.Contains(s, "PRIVATE")
}

// verifyKeys collects the keys: those of files first, then public keys, then the environment's. Where a file cannot be
// opened its name is not shown, which may be a key that was written in its place.
func (p *program) verifyKeys(f verifyFlags) ([]string, error) {
	var keys []string
	fromFile := func(name string) error {
		raw, err := p.readInput(name, maxKeyFile)
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			return path.Err
		}
		if err != nil {
			return err
		}
		key := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
		if key == "" {
			return fmt.Errorf("%s is empty", name)
		}
		keys = append(keys, key)
		return nil
	}
	for i, name := range f.secretFiles {
		if err := fromFile(name); err != nil {
			return nil, fmt.Errorf("--secret-file %d: %w", i+1, err)
		}
	}
	for i, key := range f.publicKeys {
		if isPublicKey(key) {
			keys = append(keys, key)
		} else if err := fromFile(key); err != nil {
			return nil, fmt.Errorf("--public-key %d: neither a public key (whpk_… or PEM) nor a file with one: %w", i+1, err)
		}
	}
	if secret := p.getenv(envVerifySecret); secret != "" {
		keys = append(keys, secret)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("there is no key; use --secret-file, --public-key or the environment variable %s", envVerifySecret)
	}
	return keys, nil
}

// parseInstant reads the flag --at.
func parseInstant(s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	if unix, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(unix, 0), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return at, fmt.Errorf("--at %q is no time; write 2026-01-02T15:04:05Z or Unix seconds", s)
	}
	return at, nil
}

func (p *program) printDiagnosis(d sign.Diagnosis, keys int) {
	what := strings.TrimSpace(d.Scheme + " signature in " + d.Header)
	if d.Scheme == "" {
		what = "no signature found"
	}
	if d.Valid {
		fmt.Fprintf(p.stdout, "valid: %s, made with key %d of %d\n", what, d.Key, keys)
	} else {
		fmt.Fprintf(p.stdout, "not valid: %s\n", what)
	}
	if !d.SignedAt.IsZero() {
		fmt.Fprintf(p.stdout, "  signed at %s\n", d.SignedAt.Format(time.RFC3339))
	}
	for _, finding := range d.Findings {
		fmt.Fprintf(p.stdout, "  %s: %s\n", finding.Part, finding.Text)
		if finding.Fix != "" {
			fmt.Fprintf(p.stdout, "    to do: %s\n", finding.Fix)
		}
	}
	for _, note := range d.Notes {
		fmt.Fprintf(p.stdout, "  note: %s\n", note)
	}
	if !d.Valid && d.Signed != "" {
		fmt.Fprintf(p.stdout, "  what is signed: %s\n", strings.ReplaceAll(d.Signed, "\n", "\n    "))
	}
}
