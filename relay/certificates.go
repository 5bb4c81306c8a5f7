package relay

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/guard"
)

// Certificates reads the files of certificates that the config names, and returns what they hold now, by the path of the
// key that names the file. Files of keys are not read. It may be called from several goroutines.
func (p *Plan) Certificates() (map[string][]config.Certificate, error) {
	files := map[string]string{}
	for name, d := range p.config.Destinations {
		key := "destinations." + name + ".tls."
		files[key+"ca_file"], files[key+"cert_file"] = d.TLS.CAFile, d.TLS.CertFile
	}
	if h := p.config.Listen.HTTPS; h != nil {
		const key = "listen.https."
		files[key+"cert_file"], files[key+"client_ca_file"], files[key+"acme.ca_file"] = h.CertFile, h.ClientCAFile, h.ACME.CAFile
	}
	known := map[string][]config.Certificate{} // by file: defaults name one for many destinations
	out := map[string][]config.Certificate{}
	for _, key := range sortedKeys(files) {
		path := files[key]
		if path == "" {
			continue
		}
		if known[path] == nil {
			all, err := guard.ReadCertificates(path)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			known[path] = shownCertificates(all)
		}
		out[key] = known[path]
	}
	return out, nil
}

func shownCertificates(all []*x509.Certificate) []config.Certificate {
	shown := make([]config.Certificate, len(all))
	for i, c := range all {
		sum, subject := sha256.Sum256(c.Raw), oneLine(c.Subject.String())
		if subject == "" { // all may be in the alternative names
			subject = name(c)
		}
		shown[i] = config.Certificate{SHA256: hex.EncodeToString(sum[:]), Subject: subject, NotAfter: c.NotAfter.UTC()}
	}
	return shown
}
