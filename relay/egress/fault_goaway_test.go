package egress_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/postern-relay/postern/store"
)

// TestFaultGoAwayAtOnce holds that a receiver which ends each HTTP/2 connection before any request is one that is not to be
// reached, whatever the transport saw first: the end, or that it may not begin a request any more.
func TestFaultGoAwayAtOnce(t *testing.T) {
	f := newFarEnd(t)
	f.talk(t, f.tlsConfig(t, "h2"), func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(conn, conn)
		if fr.WriteSettings() == nil && fr.WriteGoAway(0, http2.ErrCodeNo, nil) == nil {
			_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // some of them the transport keeps for a while
			_, _ = io.Copy(io.Discard, conn)
		}
	})
	s := f.sender(t, nil)
	const attempts = 100
	texts := map[string]int{}
	for range attempts {
		a := s.Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassConnect, 0)
		texts[a.Error]++
	}
	t.Attr("fault", fmt.Sprintf("receivers: %d connections ended by GOAWAY before any request, all of class connect: %v", attempts, texts))
}
