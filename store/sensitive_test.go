package store_test

import (
	"testing"

	"github.com/postern-relay/postern/store"
)

func TestSensitiveName(t *testing.T) {
	for name, want := range map[string]bool{
		"Authorization": true, "X-AUTH": true, "Cookie": true, "x-gitlab-token": true, "DD-API-KEY": true, "X-Client-Secret": true,
		"X-Password": true, "X-Credentials": true, "X-Signature": true, "X-Session": true,
		"Idempotency-Key": false, "X-Idempotency-Key": false, "X-Request-Id": false, "Traceparent": false, "Ce-Type": false, "": false,
	} {
		if got := store.SensitiveName(name); got != want {
			t.Errorf("SensitiveName(%q): got %v, want %v", name, got, want)
		}
	}
}
