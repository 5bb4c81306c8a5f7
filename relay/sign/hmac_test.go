package sign

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestHMACVectors(t *testing.T) {
	const hello = "Hello, World!"
	tests := []struct {
		name string
		o    HMACOptions
		body string
		want string
	}{
		{
			"GitHub's documented example",
			HMACOptions{Header: "X-Hub-Signature-256", Secret: "It's a Secret to Everybody", Prefix: "sha256="},
			hello, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
		},
		{
			"the same in base64, spelled out and without prefix",
			HMACOptions{Header: "X-S", Secret: "It's a Secret to Everybody", Algorithm: "sha256", Encoding: "base64"},
			hello, "dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc=",
		},
		{
			// This one and the next were computed by openssl dgst -hmac.
			"sha1 in hex",
			HMACOptions{Header: "X-S", Secret: "key-key-key", Algorithm: "sha1", Encoding: "hex"},
			"The quick brown fox jumps over the lazy dog", "0d999a045c072aa99dc77ce6e03a8839e46b9b2c",
		},
		{
			"sha512 in base64",
			HMACOptions{Header: "X-S", Secret: "key-key-key", Algorithm: "sha512", Encoding: "base64", Prefix: "v0="},
			"The quick brown fox jumps over the lazy dog", "v0=9AWiHe/qYfiSg7L8feuwwyp5QWwDc1X0h9zO7Av1JNNYhoINeRgh3QcGLJQzxR+M2dMzJ4dMbcZ36sNQUdzW0w==",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewHMAC(tt.o)
			if err != nil {
				t.Fatalf("NewHMAC: %v", err)
			}
			for range 2 { // the second time with a used state
				got, err := s.Sign(Input{Body: []byte(tt.body)})
				if err != nil || len(got) != 1 || got[0] != (Header{Name: tt.o.Header, Value: tt.want}) {
					t.Errorf("got %v, %v; want %s: %s", got, err, tt.o.Header, tt.want)
				}
			}
		})
	}
}

func TestNewHMAC(t *testing.T) {
	const secret = "correct horse battery"
	tests := []struct {
		name string
		o    HMACOptions
		want string // in the error; empty means none
	}{
		{"header and secret are enough", HMACOptions{Header: "X-Signature", Secret: secret}, ""},
		{"webhookx-signature is a header of one's own", HMACOptions{Header: "webhookx-signature", Secret: secret}, ""},
		{"8 bytes of secret are enough", HMACOptions{Header: "X-S", Secret: "8 bytes!"}, ""},
		{"a whsec_ secret is used as text", HMACOptions{Header: "X-S", Secret: NewSecret()}, ""},
		{"a missing header is refused", HMACOptions{Secret: secret}, "the header is missing"},
		{"a header with a space is refused", HMACOptions{Header: "X S", Secret: secret}, "cannot be the name"},
		{"a header with a line end is refused", HMACOptions{Header: "X-S\r\nA: b", Secret: secret}, "cannot be the name"},
		{"a header with a colon is refused", HMACOptions{Header: "X-S:", Secret: secret}, "cannot be the name"},
		{"a header of 129 bytes is refused", HMACOptions{Header: strings.Repeat("X", 129), Secret: secret}, "cannot be the name"},
		{"webhook-signature is refused", HMACOptions{Header: "webhook-signature", Secret: secret}, "Standard Webhooks"},
		{"WEBHOOK-ID is refused", HMACOptions{Header: "WEBHOOK-ID", Secret: secret}, "Standard Webhooks"},
		{"connection is refused", HMACOptions{Header: "connection", Secret: secret}, "another meaning"},
		{"Transfer-Encoding is refused", HMACOptions{Header: "Transfer-Encoding", Secret: secret}, "another meaning"},
		{"TE is refused", HMACOptions{Header: "TE", Secret: secret}, "another meaning"},
		{"Host is refused", HMACOptions{Header: "Host", Secret: secret}, "another meaning"},
		{"Authorization is refused", HMACOptions{Header: "AUTHORIZATION", Secret: secret}, "another meaning"},
		{"an empty secret is refused", HMACOptions{Header: "X-S"}, "the secret is empty"},
		{"7 bytes of secret are refused", HMACOptions{Header: "X-S", Secret: "7 bytes"}, "shorter than 8"},
		{"1,025 bytes of secret are refused", HMACOptions{Header: "X-S", Secret: strings.Repeat("abcde", 205)}, "longer than 1024"},
		{"a line end behind the secret is refused", HMACOptions{Header: "X-S", Secret: secret + "\n"}, "white space"},
		{"a repeated character is refused", HMACOptions{Header: "X-S", Secret: "xxxxxxxxxxxxxxxx"}, "repeated"},
		{"another algorithm is refused", HMACOptions{Header: "X-S", Secret: secret, Algorithm: "md5"}, `algorithm "md5" is not known`},
		{"another encoding is refused", HMACOptions{Header: "X-S", Secret: secret, Encoding: "HEX"}, `encoding "HEX" is not known`},
		{"a prefix with a line end is refused", HMACOptions{Header: "X-S", Secret: secret, Prefix: "a\r\n"}, "prefix"},
		{"a prefix that begins with a space is refused", HMACOptions{Header: "X-S", Secret: secret, Prefix: " a"}, "prefix"},
		{"a prefix of 65 bytes is refused", HMACOptions{Header: "X-S", Secret: secret, Prefix: strings.Repeat("a", 65)}, "at most 64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewHMAC(tt.o)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if err != nil && tt.o.Secret != "" && strings.Contains(err.Error(), tt.o.Secret) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestHMACVerify(t *testing.T) {
	s, err := NewHMAC(HMACOptions{Header: "x-sig", Secret: "correct horse", Prefix: "sha256="})
	if err != nil {
		t.Fatal(err)
	}
	headers, err := s.Sign(Input{Body: []byte("body")})
	if err != nil {
		t.Fatal(err)
	}
	good := headers[0].Value
	tests := []struct {
		name, value, body string
		want              error
	}{
		{"what was signed passes", good, "body", nil},
		{"another body does not", good, "body ", ErrNoMatch},
		{"a cut signature does not", good[:len(good)-1], "body", ErrNoMatch},
		{"a signature without prefix does not", strings.TrimPrefix(good, "sha256="), "body", ErrNoMatch},
		{"a missing header is told", "", "body", ErrMissingHeader},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			if tt.value != "" {
				h.Set(s.Header(), tt.value)
			}
			if got := s.Verify(h, []byte(tt.body)); !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzNewStandard(f *testing.F) {
	f.Add("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f.Add("whsk_")
	f.Add("whsec_====")
	f.Add(" whsec_\n")
	f.Fuzz(func(t *testing.T, secret string) {
		s, err := NewStandard([]string{secret})
		if (err == nil) == (s == nil) {
			t.Errorf("got %v, %v", s, err)
		}
		if err != nil && len(secret) > 12 && strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the secret: %v", err)
		}
	})
}

// T34: a comparison that stops at the first difference tells a forger how far he has come.
func TestComparesInConstantTime(t *testing.T) {
	files, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range leakyComparisons(t, name, string(src)) {
			t.Error(fault)
		}
		checked++
	}
	if checked < 10 {
		t.Errorf("looked at %d files; the test does not find the package", checked)
	}
	t.Run("the check finds what it looks for", func(t *testing.T) {
		for _, expr := range []string{
			"bytes.Equal(a, b)", "strings.EqualFold(a, b)", "reflect.DeepEqual(a, b)", "gotSig == x", "x != want",
			"string(sum) == x", "r.signature == x",
		} {
			if got := leakyComparisons(t, "x.go", "package x\nvar _ = "+expr+"\n"); len(got) != 1 {
				t.Errorf("%s: got %q, want one fault", expr, got)
			}
		}
	})
}

// harmless reports whether an operand makes a comparison one of form: a literal, nil, or a length.
func harmless(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name == "nil"
	case *ast.CallExpr:
		id, ok := e.Fun.(*ast.Ident)
		return ok && id.Name == "len"
	}
	return false
}

func leakyComparisons(t *testing.T, name, src string) []string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	var faults []string
	text := func(n ast.Node) string {
		return strings.ToLower(src[fset.Position(n.Pos()).Offset:fset.Position(n.End()).Offset])
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			switch text(n) {
			case "bytes.equal", "bytes.compare", "strings.equalfold", "strings.compare", "reflect.deepequal", "slices.equal":
				faults = append(faults, fset.Position(n.Pos()).String()+": "+text(n)+"; use crypto/subtle")
			}
		case *ast.BinaryExpr:
			if harmless(n.X) || harmless(n.Y) {
				return true
			}
			for _, operand := range []ast.Expr{n.X, n.Y} {
				if n.Op != token.EQL && n.Op != token.NEQ {
					break
				}
				operandText := text(operand)
				if strings.Contains(operandText, "constanttimecompare") {
					continue
				}
				for _, word := range []string{"sig", "sum", "want", "mac"} {
					if strings.Contains(operandText, word) {
						faults = append(faults, fset.Position(n.Pos()).String()+": "+text(n)+"; use crypto/subtle")
						return true
					}
				}
			}
		}
		return true
	})
	return faults
}
