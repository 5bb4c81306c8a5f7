package guard

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
)

// ServerIdentity is what a TLS listener of ours shows, and whom it lets in, from files that it follows as a Transport
// does: each question looks at them, at most once a second, and files that LoadServerIdentity would refuse leave all as
// it is. Its methods may be called from several goroutines.
type ServerIdentity struct {
	files followedFiles
	used  atomic.Pointer[identity]
}

// LoadServerIdentity reads the files of a listener: CA holds the authorities of client certificates, and Cert and Key
// are what the listener shows, a certificate that names at least one host. Each of the two may be missing. The error
// joins a *FileError for each fault; its option for CA is client_ca_file.
func LoadServerIdentity(files TLSFiles) (*ServerIdentity, error) {
	files.server, files.BesideSystem = true, false
	s := &ServerIdentity{}
	if err := s.files.open(files, s.use); err != nil {
		return nil, err
	}
	return s, nil
}

// CheckServer reads the files and returns what LoadServerIdentity would refuse, or nil.
func (f TLSFiles) CheckServer() error {
	f.server, f.BesideSystem = true, false
	return f.Check()
}

func (s *ServerIdentity) use(id identity) { s.used.Store(&id) }

func (s *ServerIdentity) follow() *identity {
	s.files.follow(s.use)
	return s.used.Load()
}

// Certificate returns what the listener shows, with its Leaf, or nil if no files for it are named. It is not to be
// changed.
func (s *ServerIdentity) Certificate() *tls.Certificate { return s.follow().cert }

// ClientCAs returns the authorities of client certificates, or nil if no file of them is named. It is not to be changed.
func (s *ServerIdentity) ClientCAs() *x509.CertPool { return s.follow().roots }
