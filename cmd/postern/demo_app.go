package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	demoPostEvery = 40 * time.Millisecond
	demoRepost    = 100 * time.Millisecond // how long the app waits before it posts again
)

// post is the app: it posts an order, then an alert, and so on until ctx ends. As an app should, it posts again
// under the same Idempotency-Key when it has not read an answer, as happens when the relay is killed. A post that is
// under way when ctx ends is not broken off: it may be on disk, and would be missing among those that were accepted.
func (s *demoStage) post(ctx context.Context) {
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(demoPostEvery)
	defer ticker.Stop()
	for n := 1; ; n++ {
		target, post := "/events/order.paid", demoPost{"orders", fmt.Sprintf(`{"order":%d,"total":"%d.90"}`, n, n%100)}
		if n%2 == 0 {
			target, post = "/to/alerts", demoPost{"alerts", fmt.Sprintf(`{"alert":%d,"severity":"high"}`, n)}
		}
		for try := 0; ; try++ {
			id, err := demoRequest(context.WithoutCancel(ctx), client, "http://"+s.ingest+target, fmt.Sprintf("demo-%d", n), post.body)
			if err == nil {
				s.mu.Lock()
				s.accepted[id] = post
				s.reposts += min(try, 1)
				s.mu.Unlock()
				break
			}
			if !pause(ctx, demoRepost) {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// demoRequest makes one post and returns the id of the message.
func demoRequest(ctx context.Context, client *http.Client, url, key, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	answer, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("status %d: %s", answer.StatusCode, text)
	}
	var accepted struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(text, &accepted); err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return accepted.ID, nil
}

// pause waits for d, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// freePorts returns n loopback addresses that were free a moment ago. The relay must find the same ports again
// after each start, so they cannot be left to the system.
func freePorts(n int) ([]string, error) {
	addresses := make([]string, 0, n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // only now, so that no port is given twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}
