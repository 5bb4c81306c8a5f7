package badgerstore

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// badgerLogger takes Badger's own messages into the log, and listens for the one that means damage.
type badgerLogger struct {
	log *zap.Logger

	mu       sync.Mutex // guards the fields below
	table    string     // that Badger has left out, or empty
	manifest func(error)
}

// onManifest has f called when the manifest could not be written. Badger goes on then, with a change in memory that it has
// taken back on the disk, or the other way round, and its next merge would make that last.
func (l *badgerLogger) onManifest(f func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.manifest = f
}

func (l *badgerLogger) look(text string) {
	if !strings.Contains(text, badger.ManifestFilename+": ") { // as the path of an error is followed by its cause
		return
	}
	l.mu.Lock()
	f := l.manifest
	l.mu.Unlock()
	if f != nil {
		f(errors.New("database: " + text))
	}
}

// ignored returns the name of a table that Badger could not read and goes on without, or nothing.
func (l *badgerLogger) ignored() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table
}

// Errorf implements badger.Logger.
func (l *badgerLogger) Errorf(format string, args ...any) {
	text := oneLine(format, args)
	if table, ok := strings.CutPrefix(text, "Ignoring table "); ok {
		l.mu.Lock()
		l.table = table
		l.mu.Unlock()
	}
	l.log.Error("database error", zap.String("detail", text))
	l.look(text)
}

// Warningf implements badger.Logger.
func (l *badgerLogger) Warningf(format string, args ...any) {
	text := oneLine(format, args)
	l.log.Warn("database warning", zap.String("detail", text))
	l.look(text)
}

// Infof implements badger.Logger. What Badger finds worth telling is for debugging Postern.
func (l *badgerLogger) Infof(format string, args ...any) {
	l.log.Debug("database notice", zap.String("detail", oneLine(format, args)))
}

// Debugf implements badger.Logger. It drops the message: some of them hold keys.
func (l *badgerLogger) Debugf(string, ...any) {}

// oneLine bounds a message, since some of Badger's hold a piece of the data (docs/badger.md).
func oneLine(format string, args []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	if first, _, more := strings.Cut(text, "\n"); more {
		text = first
	}
	return text[:min(len(text), 300)]
}
