package guard

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadAnswer(t *testing.T) {
	fill := func(size int) string {
		const begin, end = "HTTP/1.1 200 OK\r\nX: ", "\r\n\r\n"
		return begin + strings.Repeat("x", size-len(begin)-len(end)) + end
	}
	tests := []struct {
		name, answer string
		status       int
		err          error
	}{
		{"a short answer", "HTTP/1.1 200 OK\r\n\r\n", 200, nil},
		{"no reason phrase", "HTTP/1.0 200\r\n\r\n", 200, nil},
		{"bare line feeds", "HTTP/1.1 200 OK\nA: b\n\n", 200, nil},
		{"other 2xx", "HTTP/1.1 299 \r\n\r\n", 299, nil},
		{"a body of a refusal is left alone", "HTTP/1.1 503 No\r\n\r\nbody", 503, nil},
		{"interim answers are passed over", "HTTP/1.1 100\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, nil},
		{"switching protocols is no interim answer", "HTTP/1.1 101 x\r\n\r\n", 101, nil},
		{"exactly 8 KiB", fill(8 << 10), 200, nil},
		{"one byte more", fill(8<<10 + 1), 0, errAnswerSize},
		{"bytes behind a success", "HTTP/1.1 200 OK\r\n\r\nx", 0, errAnswerMore},
		{"nothing", "", 0, errAnswerEnd},
		{"half a header", "HTTP/1.1 200 OK\r\nA: b\r\n", 0, errAnswerEnd},
		{"interim answers only", "HTTP/1.1 100 x\r\n\r\n", 0, errAnswerEnd},
		{"an empty line first", "\r\nHTTP/1.1 200 OK\r\n\r\n", 0, errAnswerHTTP},
		{"another protocol", "ICY 200 OK\r\n\r\n", 0, errAnswerHTTP},
		{"another version", "HTTP/1.2 200 OK\r\n\r\n", 0, errAnswerHTTP},
		{"two digits", "HTTP/1.1 20\r\n\r\n", 0, errAnswerHTTP},
		{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", 0, errAnswerHTTP},
		{"no digits", "HTTP/1.1 2x0 OK\r\n\r\n", 0, errAnswerHTTP},
		{"a sign", "HTTP/1.1 +20 OK\r\n\r\n", 0, errAnswerHTTP},
		{"below 100", "HTTP/1.1 099 OK\r\n\r\n", 0, errAnswerHTTP},
		{"above 599", "HTTP/1.1 600 OK\r\n\r\n", 0, errAnswerHTTP},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n", 0, errAnswerHTTP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"at once": strings.NewReader(tt.answer), "with its end": iotest.DataErrReader(strings.NewReader(tt.answer)),
			} {
				if status, err := readAnswer(r); status != tt.status || !errors.Is(err, tt.err) {
					t.Errorf("%s: got %d, %v; want %d, %v", name, status, err, tt.status, tt.err)
				}
			}
			// Byte by byte, nothing behind the answer is read, so it cannot be refused.
			want, wantErr := tt.status, tt.err
			if tt.err == errAnswerMore {
				want, wantErr = 200, nil
			}
			if status, err := readAnswer(iotest.OneByteReader(strings.NewReader(tt.answer))); status != want || !errors.Is(err, wantErr) {
				t.Errorf("byte by byte: got %d, %v; want %d, %v", status, err, want, wantErr)
			}
		})
	}
	t.Run("an error of the connection is passed on", func(t *testing.T) {
		broken := errors.New("broken")
		if _, err := readAnswer(io.MultiReader(strings.NewReader("HTTP/1.1 2"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("got %v, want %v", err, broken)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 407\nA: b\n\n", "HTTP/1.1 100\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx", "\n\n", "HTTP/1.1 200 OK\r\r\n\n",
		"HTTP/1.1 200\r\n\n", "SSH-2.0\r\n", strings.Repeat("HTTP/1.1 102 \n\n", 700),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		r := bytes.NewReader(answer)
		status, err := readAnswer(r)
		if read := len(answer) - r.Len(); read > maxConnectAnswer {
			t.Errorf("read %d bytes", read)
		}
		if (err == nil) != (status != 0) || err == nil && status != 101 && (status < 200 || status > 599) {
			t.Fatalf("got %d, %v", status, err)
		}
		slow, slowErr := readAnswer(iotest.OneByteReader(bytes.NewReader(answer)))
		if slow != status && !errors.Is(err, errAnswerMore) || err == nil && slowErr != nil {
			t.Errorf("got %d, %v at once, and %d, %v byte by byte", status, err, slow, slowErr)
		}
		if status >= 200 && status < 300 && !bytes.HasSuffix(answer[:len(answer)-r.Len()], []byte("\n")) {
			t.Errorf("a success, and more than its header was read")
		}
	})
}
