package guard

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
)

// maxTLSFile is more than any bundle of roots has, in bytes.
const maxTLSFile = 4 << 20

// TLSFiles names the PEM files of one destination, or of one listener of ours, and says how they are watched. The zero TLSFiles names none.
type TLSFiles struct {
	CA   string // the roots that receivers are verified against; empty means those of the TransportOptions
	Cert string // the client certificate, its chain behind it; empty means none
	Key  string // the key of Cert, not encrypted; empty exactly if Cert is

	// BesideSystem adds the roots of CA to those of the system, instead of putting them in their place.
	BesideSystem bool

	Log *zap.Logger      // told of reloads and of a certificate near its end; nil means nobody
	Now func() time.Time // wall clock; nil means time.Now

	server bool // they are those of a listener, see LoadServerIdentity
}

// caOption is the key of CA in the config.
func (f TLSFiles) caOption() string {
	if f.server {
		return "client_ca_file"
	}
	return "ca_file"
}

// FileError says which of the TLSFiles is wrong. It quotes nothing of a file.
type FileError struct {
	Option string // its key in a destination's tls: ca_file, cert_file or key_file; of a listener also client_ca_file
	Err    error  // what is wrong, and what to do
}

func (e *FileError) Error() string { return e.Option + ": " + e.Err.Error() }

func (e *FileError) Unwrap() error { return e.Err }

func fileError(option, format string, args ...any) *FileError {
	return &FileError{option, fmt.Errorf(format, args...)}
}

// Check reads the files and returns what LoadTransport would refuse: an error that joins a *FileError for each fault,
// or nil. A certificate that has expired or is not valid yet is no fault: it may be renewed before it is needed.
func (f TLSFiles) Check() error {
	_, err := f.load()
	return err
}

// identity is what the files hold.
type identity struct {
	roots  *x509.CertPool   // nil without a CA file
	cert   *tls.Certificate // nil without a client certificate; its Leaf is set
	digest [sha256.Size]byte
}

// load reads the files. Its error joins *FileErrors.
func (f TLSFiles) load() (identity, error) {
	var (
		id     identity
		errs   []error
		digest = sha256.New()
	)
	read := func(option, path string) []byte {
		if path == "" {
			return nil
		}
		text, err := readTLSFile(path)
		if err != nil {
			errs = append(errs, &FileError{option, err})
			return nil
		}
		fmt.Fprintf(digest, "%s %d ", option, len(text))
		digest.Write(text)
		return text
	}
	if ca := read(f.caOption(), f.CA); ca != nil {
		id.roots = x509.NewCertPool()
		if f.BesideSystem {
			var err error
			if id.roots, err = x509.SystemCertPool(); err != nil {
				errs = append(errs, fileError("ca_file", "read the system's roots: %w", err))
				id.roots = x509.NewCertPool()
			}
		}
		if err := checkCertificates(f.caOption(), f.CA, ca); err != nil {
			errs = append(errs, err)
		}
		id.roots.AppendCertsFromPEM(ca)
	}
	cert, key := read("cert_file", f.Cert), read("key_file", f.Key)
	switch {
	case f.Cert == "" && f.Key != "":
		errs = append(errs, fileError("cert_file", "missing; name the certificate that the key in key_file belongs to"))
	case f.Key == "" && f.Cert != "":
		errs = append(errs, fileError("key_file", "missing; name the file with the key of the certificate in cert_file"))
	case cert != nil && key != nil:
		var err error
		if id.cert, err = f.pair(cert, key); err != nil {
			errs = append(errs, err)
		}
	}
	digest.Sum(id.digest[:0])
	return id, errors.Join(errs...)
}

// readTLSFile returns what a file holds, never nil without an error.
func readTLSFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	// Whatever else it is, such as a pipe, might never end.
	if !info.Mode().IsRegular() || info.Size() > maxTLSFile {
		return nil, fmt.Errorf("%q is not a file of certificates or a key; name a PEM file of at most 4MiB", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("%q is empty; name a PEM file", path)
	}
	return text, nil
}

// pair makes the client certificate of two PEM texts. Its errors are *FileErrors of our own words: those of
// crypto/x509 tell what they found in a key.
func (f TLSFiles) pair(certPEM, keyPEM []byte) (*tls.Certificate, error) {
	if err := checkCertificates("cert_file", f.Cert, certPEM); err != nil {
		return nil, err
	}
	if err := f.checkKey(keyPEM); err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	switch {
	case err == nil && f.server && len(cert.Leaf.DNSNames)+len(cert.Leaf.IPAddresses) == 0:
		return nil, fileError("cert_file", "the certificate in %q names no host (subject alternative name); issue one for the names that apps use", f.Cert)
	case err == nil:
		return &cert, nil
	case strings.Contains(err.Error(), "does not match"):
		return nil, fileError("key_file", "the key in %q does not belong to the certificate in cert_file; name the pair of which both are parts", f.Key)
	default:
		return nil, fileError("key_file", "%q holds a key that cannot be read; write an RSA, ECDSA or Ed25519 key as PKCS #8 (openssl pkey -in … -out …)", f.Key)
	}
}

// checkCertificates holds the content of a file of certificates against what crypto/x509 would pass over in silence.
func checkCertificates(option, path string, text []byte) error {
	_, otherType, err := parseCertificates(path, text)
	switch {
	case err == nil:
		return nil
	case isKeyType(otherType) && option == "cert_file":
		return fileError(option, "%q holds a key and no certificate; name the file of the certificate here and that of the key in key_file", path)
	}
	return &FileError{option, err}
}

// ReadCertificates returns what a PEM file of certificates holds. Its errors name the file and quote nothing of it.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	text, err := readTLSFile(path)
	if err != nil {
		return nil, err
	}
	all, _, err := parseCertificates(path, text)
	return all, err
}

// parseCertificates returns all certificates of a PEM text, at least one, and the type of another block in it.
func parseCertificates(path string, text []byte) (all []*x509.Certificate, otherType string, err error) {
	block, rest := pem.Decode(text)
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			otherType = block.Type
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, "", fmt.Errorf("certificate %d of %q is malformed; issue or copy it again", len(all)+1, path)
		}
		all = append(all, c)
	}
	switch {
	case bytes.Contains(rest, []byte("-----BEGIN CERTIFICATE-----")):
		return nil, "", fmt.Errorf("certificate %d of %q is cut off or malformed; issue or copy it again", len(all)+1, path)
	case len(all) == 0:
		return nil, otherType, fmt.Errorf("%q holds no certificate; it must hold PEM blocks of type CERTIFICATE", path)
	}
	return all, otherType, nil
}

func (f TLSFiles) checkKey(text []byte) error {
	otherType := ""
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case !isKeyType(block.Type):
			otherType = block.Type
			continue
		// The second form is that of RFC 1421, which OpenSSL wrote before PKCS #8.
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return fileError("key_file", "the key in %q is encrypted, and nobody can type its password here; decrypt it (openssl pkey -in … -out …) and let only Postern's account read it", f.Key)
		}
		return nil
	}
	if otherType == "CERTIFICATE" {
		return fileError("key_file", "%q holds a certificate and no key; name the file of the key here and that of the certificate in cert_file", f.Key)
	}
	return fileError("key_file", "%q holds no key; it must hold a PEM block of type PRIVATE KEY", f.Key)
}

func isKeyType(pemType string) bool {
	return pemType == "PRIVATE KEY" || strings.HasSuffix(pemType, " PRIVATE KEY")
}

// stamp is how the files looked from outside, without being read.
type stamp [3]fs.FileInfo // of CA, Cert and Key; nil where there is no file

const keyFile = 2 // where Key is in a stamp

// look returns the present stamp. It follows symbolic links, so it sees when one of them points elsewhere: that is
// how Kubernetes changes all files of a secret at once.
func (f TLSFiles) look() stamp {
	var s stamp
	for i, path := range []string{f.CA, f.Cert, keyFile: f.Key} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			s[i] = info
		}
	}
	return s
}

// same reports whether two stamps are those of the same files in the same state.
func (s stamp) same(other stamp) bool {
	for i, a := range s {
		b := other[i]
		if (a == nil) != (b == nil) {
			return false
		}
		if a != nil && !(os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())) {
			return false
		}
	}
	return true
}

// fresh reports whether one of the files is Fresh.
func (s stamp) fresh(now time.Time) bool {
	for _, info := range s {
		if info != nil && Fresh(info, now) {
			return true
		}
	}
	return false
}

// Fresh reports whether a file was written so shortly before now that it could be written once more without a change of
// its time, which some file systems count in seconds.
func Fresh(info fs.FileInfo, now time.Time) bool {
	const granularity = 2 * time.Second
	age := now.Sub(info.ModTime())
	return -granularity < age && age < granularity
}

// equal reports whether the files held the same when both were read.
func (id identity) equal(other identity) bool { return id.digest == other.digest }
