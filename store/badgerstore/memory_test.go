package badgerstore

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strings"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/postern-relay/postern/store"
)

// memoryBound is what a store may take under batches of large bodies. Before Badger's tables were bounded it took two to
// four times as much, the more the longer the batches went on.
const memoryBound = 256 << 20

func TestMemory(t *testing.T) {
	t.Run("large batches of large bodies take a bounded amount of memory", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "BADGERSTORE_TEST_LARGE="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("the accepting process: %v, after %q", err, out)
		}
		var anonymous, mapped int64
		if _, err := fmt.Sscan(string(out), &anonymous, &mapped); err != nil {
			t.Fatalf("the accepting process says %q", out)
		}
		if raceDetector(t) {
			anonymous = mapped // the detector has memory of its own, which the Go heap does not count
		}
		if anonymous <= 0 || anonymous > memoryBound {
			t.Errorf("got %d MiB of anonymous memory, want at most %d", anonymous>>20, memoryBound>>20)
		}
	})
}

// raceDetector reports whether this program is built with the race detector.
func raceDetector(tb testing.TB) bool {
	tb.Helper()
	info, ok := debug.ReadBuildInfo()
	if !ok {
		tb.Fatal("this program does not know how it was built")
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// acceptLarge accepts batches of bodies that cannot be compressed, and at the same time of others that almost vanish.
// Then it prints the most memory that it has had: anonymous and resident, and what the Go runtime had mapped.
func acceptLarge(path string) int {
	debug.SetMemoryLimit(128 << 20) // as the program does
	s, err := Open(Options{Path: path})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	errs := make(chan error, 2)
	for worker := range 2 {
		go func() {
			for range 3 {
				if _, err := s.AcceptAll(context.Background(), largeBodies(worker == 0)); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var anonymous, mapped int64
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	for left := 2; left > 0; {
		select {
		case err := <-errs:
			if err != nil {
				fmt.Println("error:", err)
				return 1
			}
			left--
		case <-ticks.C:
			anonymous, mapped = max(anonymous, anonymousMemory()), max(mapped, mappedMemory())
		}
	}
	fmt.Println(anonymous, mapped)
	return 0
}

// largeBodies is a batch of 58 MiB.
func largeBodies(random bool) iter.Seq2[store.Post, error] {
	return func(yield func(store.Post, error) bool) {
		source := rand.NewChaCha8([32]byte{1})
		raw := make([]byte, 11<<10)
		body := bytes.Repeat([]byte("h"), base64.StdEncoding.EncodedLen(len(raw)))
		for range 4000 {
			id, err := store.NewMessageID()
			if random {
				_, _ = source.Read(raw) // it never fails
				base64.StdEncoding.Encode(body, raw)
			}
			m := store.Message{ID: id, Recipients: []store.Recipient{{Destination: "alerts"}}}
			if !yield(store.Post{Message: m, Body: body}, err) {
				return
			}
		}
	}
}

// anonymousMemory returns the bytes of this process's resident memory that no file stands behind, or 0 if nobody says.
func anonymousMemory() (kib int64) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := bytes.Cut(raw, []byte("RssAnon:"))
	if _, err := fmt.Sscan(string(after), &kib); err != nil {
		return 0
	}
	return kib << 10
}

// mappedMemory returns the bytes that the Go runtime has from the system and has not given back.
func mappedMemory() int64 {
	samples := []runtimemetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	runtimemetrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}

func TestBatchMemory(t *testing.T) {
	t.Run("a batch does not keep the headers and paths of its messages", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		known := newMessage(t, "alerts")
		known.Idempotency, known.Path = &store.Idempotency{}, "/"+strings.Repeat("p", 15<<10)
		_, _, err := s.Accept(t.Context(), known, nil)
		mustDo(t, err)
		const posts = 2000
		values := make([]weak.Pointer[byte], posts)
		held := 0 // of the first half, when the last is asked for
		accepted, err := s.AcceptAll(t.Context(), func(yield func(store.Post, error) bool) {
			for i := range posts {
				m := newMessage(t, "alerts")
				value := "/" + strings.Repeat("h", 15<<10)
				values[i] = weak.Make(unsafe.StringData(value))
				switch i % 3 {
				case 0:
					m.Header = []store.Field{{Name: "X-Context", Value: value}}
				case 1:
					m.Path = value
				case 2: // means an earlier message, whose path is read from the store
					m.Idempotency = known.Idempotency
					m.Header = []store.Field{{Name: "X-Context", Value: value}}
				}
				if i == posts-1 {
					runtime.GC()
					for _, v := range values[:posts/2] {
						if v.Value() != nil {
							held++
						}
					}
				}
				if !yield(store.Post{Message: m}, nil) {
					return
				}
			}
		})
		mustDo(t, err)
		if held > 0 {
			t.Errorf("got %d of the first %d still in memory at the end, want none", held, posts/2)
		}
		for i, a := range accepted {
			if a.Message.Header != nil || a.Message.Path != "" {
				t.Fatalf("post %d: got %d fields and a path of %d bytes, want neither", i, len(a.Message.Header), len(a.Message.Path))
			}
		}
	})
	t.Run("a long message that is posted again is returned whole", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		m := newMessage(t, "alerts")
		m.Idempotency, m.Path = &store.Idempotency{}, "/a"
		m.Header = []store.Field{{Name: "X-A", Value: "b"}}
		long := make([]byte, 3<<20)
		first, _, err := s.Accept(t.Context(), m, long)
		mustDo(t, err)
		again := newMessage(t, "alerts")
		again.Idempotency = m.Idempotency
		got, existing, err := s.Accept(t.Context(), again, long)
		if err != nil || !existing || got.ID != first.ID || got.Path != "/a" || len(got.Header) != 1 || got.Size != len(long) {
			t.Errorf("got %+v, existing %t, error %v; want %+v", got, existing, err, first)
		}
	})
}
