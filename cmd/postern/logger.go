package main

import (
	"io"
	"log"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// newLogger writes to w: lines for people when format is "console", or when it is "auto" and w is a terminal, and
// JSON otherwise. What level enables may change while the logger is in use. Under load, repeated info and debug lines of one kind are thinned out to the first hundred a second and
// every hundredth after them; warnings and errors are never dropped.
func newLogger(w io.Writer, format string, level zapcore.LevelEnabler) *zap.Logger {
	encoding := zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", NameKey: "part", MessageKey: "message", StacktraceKey: "stack",
		EncodeTime:     func(t time.Time, e zapcore.PrimitiveArrayEncoder) { zapcore.RFC3339NanoTimeEncoder(t.UTC(), e) },
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.SecondsDurationEncoder,
		EncodeName:     zapcore.FullNameEncoder,
	}
	encoder := zapcore.NewJSONEncoder(encoding)
	if format == "console" || format == "auto" && isTerminal(w) {
		encoding.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoding.EncodeLevel = zapcore.CapitalColorLevelEncoder
		if !isTerminal(w) {
			encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		}
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	sink := zapcore.Lock(zapcore.AddSync(w))
	below := zap.LevelEnablerFunc(func(l zapcore.Level) bool { return level.Enabled(l) && l < zapcore.WarnLevel })
	above := zap.LevelEnablerFunc(func(l zapcore.Level) bool { return level.Enabled(l) && l >= zapcore.WarnLevel })
	core := zapcore.NewTee(
		zapcore.NewSamplerWithOptions(zapcore.NewCore(encoder, sink, below), time.Second, 100, 100),
		zapcore.NewCore(encoder, sink, above),
	)
	return zap.New(core, zap.ErrorOutput(sink))
}

// adoptStandardLog has what libraries print by the standard library's logger go to l, as lines for debugging: net/http tells
// it about answers that are no HTTP, in the words of the receiver and as often as that one likes. The returned func ends it.
func adoptStandardLog(l *zap.Logger) (end func()) {
	flags, prefix, out := log.Flags(), log.Prefix(), log.Writer()
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(foreignLines{l})
	return func() {
		log.SetFlags(flags)
		log.SetPrefix(prefix)
		log.SetOutput(out)
	}
}

// foreignLines writes lines that are not ours into a log. The message is always the same, so that a flood is thinned out.
type foreignLines struct{ log *zap.Logger }

// Write implements io.Writer for one line.
func (f foreignLines) Write(b []byte) (int, error) {
	f.log.Debug("library", zap.String("reason", strings.TrimSpace(string(b[:min(len(b), maxForeign)]))))
	return len(b), nil
}

// maxForeign bounds the bytes of a line that is not ours.
const maxForeign = 500

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// isTerminalInput reports whether a person types.
func isTerminalInput(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
