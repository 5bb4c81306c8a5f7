package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay"
)

// supervisor tells systemd how a relay does (sd_notify(3)), if systemd wants to know: it says so by NOTIFY_SOCKET, and by
// WATCHDOG_USEC that it ends a process that has not been heard of for so long. Everywhere else all of this does nothing.
type supervisor struct {
	log *zap.Logger
}

// notifyTime bounds one message. A supervisor that hangs must not hold up a reload, a stop or the watchdog: the kernel
// keeps some messages for it, and then lets us wait.
const notifyTime = 2 * time.Second

// say sends one message. That nobody takes it is no reason to stop: the log tells.
func (s supervisor) say(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	if err := notify(socket, state, notifyTime); err != nil {
		s.log.Warn("supervisor not told", zap.String("reason", err.Error()))
	}
}

// notify sends one message to a socket, which is an absolute path or, with @ at its beginning, an abstract name (unix(7)).
func notify(socket, state string, within time.Duration) error {
	if socket[0] != '/' && socket[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET is %q, which is no Unix socket", socket)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

// phase tells of a phase of the relay. A reload that was refused leaves its reason to the log.
func (s supervisor) phase(p relay.Phase, last relay.Reloaded) {
	switch p {
	case relay.Serving:
		status := "serving"
		if last.Err != nil {
			status = "serving by the earlier config: the latest one was refused, see the log"
		}
		s.say(daemon.SdNotifyReady + "\nSTATUS=" + status)
	case relay.Reloading:
		// With the time of the request systemd knows that what is ready later is what it has asked for.
		s.say(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() + "STATUS=reading the config")
	case relay.Stopping:
		s.say(daemon.SdNotifyStopping + "\nSTATUS=finishing what is in flight")
	}
}

// watch keeps the watchdog quiet for as long as the relay is alive, until ctx ends. It returns at once if there is no
// watchdog.
func (s supervisor) watch(ctx context.Context, alive func(context.Context) error) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("watchdog not obeyed", zap.Error(err))
		return
	}
	if limit <= 0 {
		return
	}
	// Twice within the limit, as sd_watchdog_enabled(3) recommends.
	keepQuiet(ctx, limit/2, alive, func(err error) {
		if err != nil {
			s.log.Error("not alive by the watchdog's measure", zap.Error(err))
			return
		}
		s.say(daemon.SdNotifyWatchdog)
	})
}

// keepQuiet asks alive every so often, and tells what it said, until ctx ends. An answer that takes longer than that is
// told as none.
func keepQuiet(ctx context.Context, every time.Duration, alive func(context.Context) error, tell func(error)) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		within, cancel := context.WithTimeout(ctx, every)
		err := alive(within)
		late := within.Err()
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = late
		}
		tell(err)
	}
}
