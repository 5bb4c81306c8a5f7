package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// otherHosts posts over HTTPS, as apps on other hosts do, while the key of the listener changes for wrong ones and for a
// right one.
func (w *watch) otherHosts() {
	w.Helper()
	app, err := w.ca.IssueClient("app on another host")
	if err != nil {
		w.Fatal(err)
	}
	before := w.postOver(app)

	strangers, err := receiver.NewCA("strangers")
	if err != nil {
		w.Fatal(err)
	}
	stranger, err := strangers.IssueClient("stranger")
	if err != nil {
		w.Fatal(err)
	}
	resp, answer, err := w.tryOver(stranger, w.ingestToken())
	if err == nil {
		w.Errorf("a client certificate of a stranger: got %d %s", resp.StatusCode, answer)
	}
	resp, answer, err = w.tryOver(app, w.secret("wrong token over HTTPS", "-._~"))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		w.Errorf("a wrong token over HTTPS: got %v %s, error %v", resp, answer, err)
	}
	w.seen.add(onRefusal, "HTTPS", answer)

	fresh, err := w.ca.Issue("relay.test")
	certificate, key := w.certificate("relay, renewed", fresh, err)
	config, err := os.ReadFile(w.file)
	if err != nil {
		w.Fatal(err)
	}
	right, err := os.ReadFile(key)
	if err != nil {
		w.Fatal(err)
	}
	for name, wrong := range map[string]string{
		"the key of another certificate": string(right), "half a key": string(right[:len(right)/2]),
		"all secrets": string(config),
	} {
		writeFile(w.T, w.CertificateKey, wrong)
		if status, answer := w.ask(onAPI, http.MethodPost, "/api/v1/reload", w.adminToken(), nil); status/100 == 2 {
			w.Errorf("a reload with %s in the key's file: got %d %s", name, status, answer)
		}
		w.command("", "validate", w.file)
	}
	for from, to := range map[string]string{certificate: w.Certificate, key: w.CertificateKey} {
		if err := os.Rename(from, to); err != nil {
			w.Fatal(err)
		}
	}
	w.reload()
	waitUntil(w.T, 20*time.Second, "the listener shows its new certificate", func() bool {
		return bytes.Equal(w.postOver(app), fresh.Certificate[0]) && !bytes.Equal(before, fresh.Certificate[0])
	})
}

// postOver posts over HTTPS and returns the certificate of the listener.
func (w *watch) postOver(client tls.Certificate) []byte {
	w.Helper()
	resp, answer, err := w.tryOver(client, w.ingestToken())
	if err != nil || resp.StatusCode != http.StatusAccepted {
		w.Fatalf("a post over HTTPS: got %v %s, error %v", resp, answer, err)
	}
	w.seen.add(onIngest, "/to/mtls over HTTPS", answer)
	return resp.TLS.PeerCertificates[0].Raw
}

// tryOver makes a post over HTTPS, on a connection of its own.
func (w *watch) tryOver(client tls.Certificate, token string) (resp *http.Response, answer []byte, err error) {
	w.Helper()
	w.posts++
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: w.ca.Pool(), ServerName: "relay.test",
		// The library would not show one that the listener does not ask for.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil },
	}}
	defer transport.CloseIdleConnections()
	body := `{"a":"` + w.content(fmt.Sprintf("body over HTTPS %d", w.posts)) + `"}`
	req, err := http.NewRequestWithContext(w.Context(), http.MethodPost, "https://"+w.HTTPS+"/to/mtls", strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	req.Host = "relay.test"
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err = transport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp, answer, err
}
