// Command clients posts one message to a Postern on this machine and prints its answer, with Go's standard library only.
//
// Usage: go run post.go DESTINATION KEY BODY. INGEST_URL names another Postern, INGEST_TOKEN its token if it wants one.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const attempts = 6

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: post DESTINATION KEY BODY")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := post(ctx, os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the process ends here
	}
	fmt.Println(answer)
}

// post returns Postern's answer to a message. While there is no answer, or one that asks to come again, it does so: the
// key makes that safe, since the same key and body are one message.
func post(ctx context.Context, destination, key, body string) (string, error) {
	url := cmp.Or(os.Getenv("INGEST_URL"), "http://127.0.0.1:8025") + "/to/" + destination
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Proxy: nil}}
	pause := 200 * time.Millisecond
	for n := 1; ; n++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			return "", err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
		if token := os.Getenv("INGEST_TOKEN"); token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		wait := pause
		resp, err := client.Do(req)
		if err == nil {
			var text []byte
			text, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			resp.Body.Close()
			switch {
			case err != nil:
			case resp.StatusCode/100 == 2:
				return string(text), nil
			case resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500:
				return "", fmt.Errorf("%s: %s", resp.Status, text) // the same again would get the same answer
			default:
				err = fmt.Errorf("%s: %s", resp.Status, text)
				if seconds, bad := strconv.Atoi(resp.Header.Get("Retry-After")); bad == nil {
					wait = time.Duration(seconds) * time.Second
				}
			}
		}
		if n == attempts {
			return "", err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "", err
		}
		pause *= 2
	}
}
