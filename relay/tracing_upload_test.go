package relay

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestCollectorRepeatsTheHeader has collectors repeat what they are shown, in all that ends in the log.
func TestCollectorRepeatsTheHeader(t *testing.T) {
	const token = "canary-0123456789"
	upload := func(t *testing.T, address string) error {
		t.Helper()
		endpoint, err := url.Parse(address + tracesPath)
		if err != nil {
			t.Fatal(err)
		}
		u := newUploader(tracing{endpoint: endpoint, header: http.Header{
			"Authorization": {"Bearer " + token}, "X-Tenant": {"canary-tenant"}, "X-Short": {"a"},
		}})
		t.Cleanup(u.client.CloseIdleConnections)
		return u.UploadTraces(t.Context(), nil)
	}
	check := func(t *testing.T, err error, want string) {
		t.Helper()
		if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("got %v, want %q in it, no secret and at most 300 bytes", err, want)
		}
	}
	t.Run("in what it has to say of the spans", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			raw, err := proto.Marshal(&coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{
				RejectedSpans: 1,
				// At the second place the end of what is kept would cut it in two.
				ErrorMessage: fmt.Sprintf("%s of %s is wrong %s %s", r.Header.Get("Authorization"), r.Header.Get("X-Tenant"), strings.Repeat("x", 140), token),
			}})
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", protobufType)
			_, _ = w.Write(raw)
		}))
		defer server.Close()
		check(t, upload(t, server.URL), "*** of *** is wrong")
	})
	t.Run("in what is no answer", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var talk sync.WaitGroup
		defer talk.Wait()
		defer l.Close()
		talk.Go(func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.ReadFull(c, make([]byte, 10))
			_, _ = io.WriteString(c, "who-is-"+token+"?"+strings.Repeat("y", 5000)+"\r\n\r\n")
		})
		check(t, upload(t, "http://"+l.Addr().String()), "***")
	})
}
