package config

import "reflect"

// checkHTTPS holds the listener for other hosts against the rules on who may reach it, and on where its certificate comes
// from.
func (d *decoder) checkHTTPS() {
	h := d.cfg.Listen.HTTPS
	if h == nil {
		return
	}
	const key = "listen.https"
	misspelt := d.src.isFaulty(key) // a key below it, perhaps
	own, err := parseAddress(h.Address)
	switch {
	case d.src.isFaulty(key + ".address"):
	case err != nil:
		d.failAt(key+".address", err.Error())
	case own.unix:
		d.failAt(key+".address", "a Unix socket needs no TLS; write host:port such as :443")
	case !own.local && len(d.cfg.Listen.Tokens) == 0 && !d.src.isFaulty("listen.tokens"):
		d.failAt(key+".address", "other hosts could post here; write listen.tokens too, or a loopback address such as 127.0.0.1:8443")
	default:
		for _, other := range []struct{ key, text string }{{"listen.ingest", d.cfg.Listen.Ingest}, {"listen.admin", d.cfg.Listen.Admin}} {
			if a, err := parseAddress(other.text); err == nil && !d.src.isFaulty(other.key) && collide(a, own) {
				d.failAt(key+".address", "the same port as "+other.key+"; write another one")
				break
			}
		}
	}
	d.checkCertificateOrigin(key, h, misspelt)
}

// checkCertificateOrigin reports a certificate that would come from two places, or from nowhere unless a key is misspelt.
func (d *decoder) checkCertificateOrigin(key string, h *HTTPS, misspelt bool) {
	files := h.CertFile != "" || h.KeyFile != "" || d.src.isFaulty(key+".cert_file") || d.src.isFaulty(key+".key_file")
	named := len(h.Domains) > 0 || d.src.isFaulty(key+".domains")
	var plain ACME
	setDefaults(reflect.ValueOf(&plain).Elem())
	switch {
	case !files && !named && !misspelt:
		d.failAt(key, "no certificate; write domains: [relay.example.com], for which certificates are obtained, or cert_file and key_file")
	case files && named:
		d.failAt(key+".domains", "contradicts cert_file and key_file; keep one of the two, since certificates are obtained for domains")
	case files && !reflect.DeepEqual(h.ACME, plain) && !d.src.isFaulty(key+".acme"):
		d.failAt(key+".acme", "means nothing with cert_file and key_file; remove it, or write domains instead of them")
	}
}
