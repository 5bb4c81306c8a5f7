package relay

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/postern-relay/postern/store"
)

// panicky is a store in which a call of one method panics, once it is told so.
type panicky struct {
	store.Store
	next atomic.Pointer[trap]
}

// trap is the method that panics, and what it does instead of its work. It does so once.
type trap struct {
	method string
	spring func()
}

func (s *panicky) enter(method string) {
	if t := s.next.Load(); t != nil && t.method == method && s.next.CompareAndSwap(t, nil) {
		t.spring()
	}
}

func (s *panicky) Accept(ctx context.Context, m store.Message, body []byte) (store.Message, bool, error) {
	s.enter("Accept")
	return s.Store.Accept(ctx, m, body)
}

func (s *panicky) Load(ctx context.Context, id store.MessageID) (store.Message, []byte, error) {
	s.enter("Load")
	return s.Store.Load(ctx, id)
}

func (s *panicky) Delivery(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
	s.enter("Delivery")
	return s.Store.Delivery(ctx, id)
}

// telling is a value that tells a secret to whoever prints it.
type telling struct{ secret string }

func (v telling) String() string { return v.secret }

// TestPanicsTellNoSecret has the parts of a whole relay panic with a secret at hand: it goes on, its log names the place,
// and nothing says what the secret is.
func TestPanicsTellNoSecret(t *testing.T) {
	const secret = "canaryKz81vQ0pXsecretWm47Jd2"
	ways := map[string]struct {
		spring func()
		reason string
	}{
		"a text":             {func() { panic(secret) }, "a value of type string"},
		"bytes":              {func() { panic([]byte(secret)) }, "a value of type []uint8"},
		"an error":           {func() { panic(fmt.Errorf("open %s: %w", secret, io.EOF)) }, "a value of type *fmt.wrapError"},
		"several errors":     {func() { panic(errors.Join(io.EOF, errors.New(secret))) }, "a value of type *errors.joinError"},
		"a value that tells": {func() { panic(telling{secret}) }, "a value of type relay.telling"},
		"a wrong type":       {func() { _ = any(secret).(fmt.Stringer) }, "interface conversion: string is not fmt.Stringer: missing method String"},
		"a wrong key":        {func() { _ = map[any]bool{}[[]string{secret}] }, "hash of unhashable type: []string"},
		"an index":           {func() { _ = secret[len(hex.EncodeToString([]byte(secret))):] }, "runtime error: slice bounds out of range [56:28]"},
	}
	broken := &panicky{}
	r := newRig(t, `destinations: {a: {url: "https://a.test/"}}`, func(r *rig) {
		broken.Store = r.memory
		r.Store = broken
	})
	var shown strings.Builder
	ask := func(method, path string, want int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.backAddr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s %s: got %d %s, error %v, want %d", method, path, resp.StatusCode, text, err, want)
		}
		fmt.Fprintln(&shown, resp.Header, string(text))
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			set := func(method string) { broken.next.Store(&trap{method, way.spring}) }
			logged := func(message, method, field string) {
				t.Helper()
				all := r.logs.FilterMessage(message).All()
				if len(all) == 0 || broken.next.Load() != nil {
					t.Fatalf("got %d times %q, and the panic in %s pending", len(all), message, method)
				}
				last := all[len(all)-1]
				fields := last.ContextMap()
				if fields["reason"] != way.reason || fields[field] == nil || !strings.Contains(fmt.Sprint(fields["stack"]), "panicky)."+method) {
					t.Errorf("got fields %v, want reason %q, %s, and %s in the stack", fields, way.reason, field, method)
				}
			}
			set("Accept")
			status, answer := r.post(t, "/to/a", "{}")
			if status != http.StatusInternalServerError {
				t.Errorf("post: got %d %s, want 500", status, answer)
			}
			shown.WriteString(answer)
			logged("handler panicked", "Accept", "path")
			r.awaitState(t, r.accept(t, "a"), store.Delivered)

			set("Load")
			id := r.accept(t, "a")
			r.awaitState(t, id, store.Failed)
			logged("attempt panicked", "Load", "delivery_id")
			r.awaitState(t, r.accept(t, "a"), store.Delivered)

			set("Delivery")
			ask(http.MethodGet, "/api/v1/deliveries/"+id.String(), http.StatusInternalServerError)
			logged("handler panicked", "Delivery", "path")
			ask(http.MethodGet, "/api/v1/deliveries/"+id.String(), http.StatusOK)
			ask(http.MethodPost, "/api/v1/deliveries/"+id.String()+"/replay", http.StatusOK)
			r.awaitState(t, id, store.Delivered)
		})
	}
	for _, path := range []string{"/api/v1/overview", "/api/v1/deliveries", "/api/v1/destinations/a", "/metrics", "/readyz"} {
		ask(http.MethodGet, path, http.StatusOK)
	}
	r.stop()
	if got := r.logs.FilterMessageSnippet("panicked").Len(); got != 3*len(ways) {
		t.Errorf("got %d lines of panics, want %d", got, 3*len(ways))
	}
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "message", StacktraceKey: "trace", NameKey: "part"})
	for _, entry := range r.logs.All() {
		line, err := encoder.EncodeEntry(entry.Entry, entry.Context)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(line.Bytes())
	}
	for _, form := range []string{
		secret[:12], secret[len(secret)-12:], hex.EncodeToString([]byte(secret[4:20])), strings.Trim(fmt.Sprint([]byte(secret[4:20])), "[]"),
		base64.StdEncoding.EncodeToString([]byte(secret))[:16],
	} {
		if before, _, found := strings.Cut(shown.String(), form); found {
			t.Errorf("the secret is shown, as %q, behind %q", form, before[max(0, len(before)-300):])
		}
	}
}
