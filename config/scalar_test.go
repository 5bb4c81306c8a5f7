package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"go.yaml.in/yaml/v4"
)

func TestScalars(t *testing.T) {
	t.Run("durations", func(t *testing.T) {
		for text, want := range map[string]time.Duration{
			"0s": 0, "30s": 30 * time.Second, "5m": 5 * time.Minute, "72h": 72 * time.Hour, "1h30m": 90 * time.Minute,
			"1.5s": 1500 * time.Millisecond, "250ms": 250 * time.Millisecond, "1h0m5s": time.Hour + 5*time.Second,
		} {
			got, err := ParseDuration(text)
			if err != nil || got != Duration(want) {
				t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
			}
			if again, err := ParseDuration(got.String()); err != nil || again != got {
				t.Errorf("%s: got %v, %v from its own text %s", text, again, err, got)
			}
		}
		for _, text := range []string{"", "0", "30", "1.5", "-3s", "3d", "s", "5 m", "9999999999h", "3s ", "NaN"} {
			if got, err := ParseDuration(text); err == nil {
				t.Errorf("%q: got %v, want an error", text, got)
			}
		}
		if got, want := Duration(72*time.Hour).String(), "72h"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := Duration(100*time.Second).String(), "1m40s"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("sizes", func(t *testing.T) {
		for text, want := range map[string]Size{
			"0B": 0, "1B": 1, "16KiB": 16 << 10, "1MiB": 1 << 20, "3GiB": 3 << 30, "1TiB": 1 << 40, "1025KiB": 1025 << 10,
			"8388607TiB": 8388607 << 40, "9223372036854775807B": math.MaxInt64,
		} {
			got, err := ParseSize(text)
			if err != nil || got != want {
				t.Errorf("%s: got %v, %v, want %d", text, got, err, want)
			}
			if got.String() != text {
				t.Errorf("got %s, want %s", got, text)
			}
		}
		for _, text := range []string{"", "1", "1MB", "1M", "1mib", "-1B", "1.5MiB", "1 MiB", "MiB", "+1B", "8388608TiB", "9223372036854775808B"} {
			if got, err := ParseSize(text); err == nil {
				t.Errorf("%q: got %v, want an error", text, got)
			}
		}
	})
	t.Run("rates", func(t *testing.T) {
		for text, want := range map[string]Rate{
			"50/s": {50, time.Second}, "100/m": {100, time.Minute}, "1/h": {1, time.Hour}, "1000000/s": {1_000_000, time.Second},
		} {
			if got, err := ParseRate(text); err != nil || got != want || got.String() != text {
				t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
			}
		}
		for _, text := range []string{"", "50", "0/s", "1000001/s", "/s", "50/", "50/d", "5.5/s", "-1/s", "50/s/s"} {
			if got, err := ParseRate(text); err == nil {
				t.Errorf("%q: got %v, want an error", text, got)
			}
		}
	})
}

func TestSecretNeverPrints(t *testing.T) {
	const canary = "canary-7f3a"
	type outer struct {
		Exported Secret
		hidden   Secret
		pointer  *Secret
		list     []Secret
		Map      map[string]Secret
	}
	s := NewSecret(canary)
	values := []any{s, &s, []Secret{s}, map[string]Secret{"k": s}, outer{s, s, &s, []Secret{s}, map[string]Secret{"k": s}}, &outer{Exported: s, hidden: s}, [1]any{s}, fmt.Errorf("because of %v", s)}
	check := func(how, got string) {
		t.Helper()
		if strings.Contains(got, canary) || strings.Contains(got, fmt.Sprintf("%x", canary)) || strings.Contains(got, fmt.Sprintf("%X", canary)) ||
			strings.Contains(got, strings.Trim(fmt.Sprint([]byte(canary)), "[]")) {
			t.Errorf("%s: got %q", how, got)
		}
	}
	for _, v := range values {
		for _, verb := range strings.Split("%v %+v %#v %s %q %x %X % x %d %t %b %o %c %U %e %g %p %T %10v %-10s %.3s", " ") {
			check(verb, fmt.Sprintf(verb, v))
		}
		check("Sprint", fmt.Sprint(v)+fmt.Sprintln(v))
		asJSON, _ := json.Marshal(v)
		check("json", string(asJSON))
		asYAML, _ := yaml.Marshal(v)
		check("yaml", string(asYAML))
		var out bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("m", "v", v)
		}
		check("slog", out.String())
		core, logs := observer.New(zapcore.DebugLevel)
		zap.New(core).Info("m", zap.Any("v", v), zap.Reflect("r", v))
		entry := logs.All()[0]
		line, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(entry.Entry, entry.Context)
		if err != nil {
			t.Fatal(err)
		}
		check("zap", line.String())
	}
	if got, want := fmt.Sprintf("%v %s %#v %q", s, s, s, s), "*** *** *** ***"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if s.Reveal() != canary || !s.IsSet() || (Secret{}).Reveal() != "" || (Secret{}).IsSet() {
		t.Error("Reveal or IsSet does not tell what was put in")
	}
}

func FuzzScalars(f *testing.F) {
	for _, seed := range []string{"30s", "1h0m", "16KiB", "50/s", "", "-1B", "99999999999999TiB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := ParseDuration(text); err == nil {
			if again, err := ParseDuration(d.String()); err != nil || again != d || d < 0 {
				t.Errorf("%q: got %v, %v, want %v", text, again, err, d)
			}
		}
		if s, err := ParseSize(text); err == nil {
			if again, err := ParseSize(s.String()); err != nil || again != s || s < 0 {
				t.Errorf("%q: got %v, %v, want %v", text, again, err, s)
			}
		}
		if r, err := ParseRate(text); err == nil {
			if again, err := ParseRate(r.String()); err != nil || again != r {
				t.Errorf("%q: got %v, %v, want %v", text, again, err, r)
			}
		}
	})
}
