package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/term"

	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/relay/admin"
)

const (
	sendTimeout   = 30 * time.Second // beyond what was asked to wait
	maxSendWait   = 60 * time.Second // as ingest has it
	maxSendAnswer = 16 << 20
)

// sendFlags are the flags of the command send.
type sendFlags struct {
	bodyFlags
	ingest, tokenFile    string
	event                string
	key, idempotencyKey  string
	delay, deliverAt     string
	wait                 time.Duration
	destination, subPath string // of the argument
}

func (p *program) sendCommand() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send DESTINATION[/PATH] | --event TYPE",
		Short: "Post a message, as an app would",
		Long: `Post one message to the ingest listener of a running Postern: to a destination by its name, or as an event to all
destinations that want it. The body is the value of --data, the contents of --file, or the standard input, byte for
byte. When the command ends with exit code 0, the message is on disk.

With --wait it goes on to wait for the deliveries, and exit code 0 means that all of them were delivered; 1 that one
has failed, or is still pending after that time. A pending one goes on.

The address is that of --ingest, else listen.ingest of the config file. The token, where one is wanted, is that of
--token-file, else of the environment variable ` + envIngestToken + `, else the first of listen.tokens of the config file that
may post it. There is deliberately no flag for the token itself.`,
		Example: `  postern send alerts --data '{"severity": "high"}'
  postern send --event order.paid --file order.json --idempotency-key order-7 --wait 10s
  jq .order order.json | postern send orders`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeDestination,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.destination, f.subPath, _ = strings.Cut(args[0], "/")
				if strings.Contains(args[0], "/") {
					f.subPath = "/" + f.subPath
				}
			}
			_, query, _ := strings.Cut(f.subPath, "?")
			switch {
			case strings.Contains(f.subPath, "#") || strings.Contains(query, " "):
				return usageError{errors.New("the path behind the destination ends at a #, and its query at a space; write %23 and %20")}
			case (f.destination == "") == (f.event == ""):
				return usageError{errors.New("name a destination, or an event by --event; just one of them")}
			case f.wait < 0 || f.wait > maxSendWait || f.wait > 0 && f.wait < time.Second:
				return usageError{fmt.Errorf("--wait: give a time from 1s to %v", maxSendWait)}
			}
			return p.send(cmd, f)
		},
	}
	p.configFlag(cmd)
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.ingest, "ingest", "", "address of the ingest listener, such as 127.0.0.1:8025; else listen.ingest of the config file")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the token of the ingest listener")
	flags.StringVar(&f.event, "event", "", "event type")
	flags.StringVar(&f.key, "key", "", "ordering key (Postern-Key)")
	flags.StringVar(&f.idempotencyKey, "idempotency-key", "", "the same key again is the same message (Idempotency-Key)")
	flags.StringVar(&f.delay, "delay", "", "how long to wait before the first attempt, such as 90s or 24h (Postern-Delay)")
	flags.StringVar(&f.deliverAt, "deliver-at", "", "time of the first attempt, such as 2026-12-24T18:00:00Z (Postern-Deliver-At)")
	flags.DurationVar(&f.wait, "wait", 0, "wait so long for the outcome, up to 60s")
	return cmd
}

// posted is the answer of ingest to one message.
type posted struct {
	ID         string           `json:"id"`
	Deliveries []postedDelivery `json:"deliveries"`
}

type postedDelivery struct {
	ID          string `json:"id"`
	Destination string `json:"destination"`
	State       string `json:"state"`
	Reason      string `json:"reason,omitempty"`
}

func (p *program) send(cmd *cobra.Command, f sendFlags) error {
	body, given, err := p.body(cmd, f.bodyFlags)
	if err != nil {
		return err
	}
	if !given {
		if in, ok := p.stdin.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
			return usageError{errors.New("there is no body; use --data or --file, or pipe it in")}
		}
		if body, err = p.readInput("-", maxBody); err != nil {
			return usageError{fmt.Errorf("read body: %w", err)}
		}
	}
	header, err := f.requestHeader(body)
	if err != nil {
		return err
	}
	address, token, err := p.ingest(f)
	if err != nil {
		return err
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	path := "/events/" + url.PathEscape(f.event)
	if f.event == "" {
		path = "/to/" + url.PathEscape(f.destination) + f.subPath
	}
	answer, again, err := postMessage(cmd.Context(), address, path, header, body, sendTimeout+f.wait)
	if err != nil {
		return err
	}
	return p.printPosted(answer, again, f.wait)
}

// requestHeader returns the header fields of the post.
func (f sendFlags) requestHeader(body []byte) (http.Header, error) {
	h, err := f.header()
	if err != nil {
		return nil, err
	}
	for _, field := range []struct{ flag, name, value string }{
		{"--content-type", "Content-Type", f.contentType}, {"--key", "Postern-Key", f.key},
		{"--idempotency-key", "Idempotency-Key", f.idempotencyKey}, {"--delay", "Postern-Delay", f.delay},
		{"--deliver-at", "Postern-Deliver-At", f.deliverAt},
	} {
		switch {
		case !httpguts.ValidHeaderFieldValue(field.value):
			return nil, usageError{fmt.Errorf("%s: it %w", field.flag, errNoValue)}
		case field.value != "":
			h.Set(field.name, field.value)
		}
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", typeOf(body))
	}
	if f.wait > 0 {
		h.Set("Prefer", "wait="+strconv.Itoa(int(f.wait/time.Second)))
	}
	return h, nil
}

// typeOf returns the content type of a body that nobody has named.
func typeOf(body []byte) string {
	switch {
	case json.Valid(body):
		return "application/json"
	case utf8.Valid(body):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// ingest returns address and token of the ingest listener. A token of the config goes only to the address of the config.
func (p *program) ingest(f sendFlags) (address, token string, err error) {
	if token, err = p.token(f.tokenFile, envIngestToken); err != nil || f.ingest != "" {
		return f.ingest, token, err
	}
	cfg := p.looseConfig(true)
	if cfg.Faulty("listen.ingest") {
		return "", "", usageError{errors.New("listen.ingest of the config has a fault; name the address by --ingest")}
	}
	if token == "" && !cfg.Faulty("listen.tokens") {
		token = relay.PostToken(cfg, f.destination, f.event).Reveal()
	}
	return cfg.Listen.Ingest, token, nil
}

// postMessage makes one request to the ingest listener. again tells that the message was there already.
func postMessage(ctx context.Context, address, path string, header http.Header, body []byte, timeout time.Duration) (answer posted, again bool, err error) {
	transport, host, err := admin.Transport(address)
	if err != nil {
		return answer, false, usageError{fmt.Errorf("post through %s: %w", address, err)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+path, bytes.NewReader(body))
	if err != nil {
		return answer, false, usageError{errors.New("the path behind the destination is not that of a URL")}
	}
	req.Header = header
	resp, err := transport.RoundTrip(req) // no http.Client: there is nothing to follow and no cookie to keep
	if err != nil {
		return answer, false, postFailure(ctx, address, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxSendAnswer))
	if err != nil {
		return answer, false, postFailure(ctx, address, err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return answer, false, refusedPost(address, resp.StatusCode, raw)
	}
	if err := json.Unmarshal(raw, &answer); err != nil || answer.ID == "" {
		return answer, false, fmt.Errorf("post through %s: the answer has the status %d and is not of Postern; check the address", address, resp.StatusCode)
	}
	return answer, resp.Header.Get("Idempotency-Replayed") == "true", nil
}

// postFailure says why there was no answer. Whether the message was taken is not known, unless nobody was there.
func postFailure(ctx context.Context, address string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("post through %s: %w; is postern run running? start it, or name the ingest listener of the one that is by --ingest", address, err)
	}
	return fmt.Errorf("post through %s: %w; it may have been accepted all the same: send it again under an --idempotency-key", address, err)
}

// refusedPost returns what a problem says.
func refusedPost(address string, status int, raw []byte) error {
	var said struct{ Detail string }
	if err := json.Unmarshal(raw, &said); err != nil || said.Detail == "" {
		said.Detail = fmt.Sprintf("the answer has the status %d and is not of Postern; check the address", status)
	}
	err := fmt.Errorf("post through %s: %s", address, said.Detail)
	switch status {
	case http.StatusBadRequest:
		return usageError{err}
	case http.StatusUnauthorized:
		return fmt.Errorf("%w; give the token by %s or --token-file", err, envIngestToken)
	}
	return err
}

// printPosted prints what became of a message; an error says that it was to be delivered and is not.
func (p *program) printPosted(m posted, again bool, wait time.Duration) error {
	missing, failed := 0, 0
	for _, d := range m.Deliveries {
		if d.State != "delivered" {
			missing++
		}
		if d.State == "failed" || d.State == "canceled" {
			failed++
		}
	}
	if p.json {
		if err := p.printJSON(m); err != nil {
			return err
		}
	} else {
		s := p.screen()
		note := ""
		if again {
			note = s.faint.Render("  accepted before, under this idempotency key")
		}
		s.line(s.strong.Render(clean(m.ID)) + note)
		if len(m.Deliveries) == 0 {
			s.line("  no destination wants this event")
		}
		t := &table{columns: []column{{title: "  "}, {}, {}, {least: 10}}, width: s.width}
		for _, d := range m.Deliveries {
			t.add(plainCell("  "+clean(d.ID)), plainCell(clean(d.Destination)), cell{clean(d.State), s.state(d.State)}, cell{clean(d.Reason), s.faint})
		}
		t.write(s, false)
	}
	switch {
	case wait == 0 || missing == 0:
		return nil
	case failed > 0:
		return fmt.Errorf("%s of %d failed", count(failed, "delivery"), len(m.Deliveries))
	}
	return fmt.Errorf("not delivered within %v; pending deliveries go on, and postern show %s tells how they stand", wait, clean(m.ID))
}
