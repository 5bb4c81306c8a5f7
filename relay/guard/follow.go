package guard

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	lookEvery = time.Second // at least between two looks at the files

	// A certificate is near its end when less than this is left of it, or than a quarter of its life if that is
	// shorter: who renews automatically does so at a third.
	nearEnd = 14 * 24 * time.Hour
)

// followedFiles are TLSFiles that somebody has in use, and looks at again before each use. They tell the log what
// becomes of them. open comes first; then follow may be called from several goroutines.
type followedFiles struct {
	files TLSFiles

	looking sync.Mutex // held while the files are looked at; guards the fields below
	looked  time.Time
	stamp   stamp
	unsure  bool   // the stamp may not tell of a change
	trouble string // why what was read last is not used, or empty
	used    identity
	warned  validity // what has been said of the certificate in use
}

// open reads the files for the first time, and hands what they hold to use. Its error joins a *FileError for each fault.
func (f *followedFiles) open(files TLSFiles, use func(identity)) error {
	if files.Log == nil {
		files.Log = zap.NewNop()
	}
	if files.Now == nil {
		files.Now = time.Now
	}
	f.looking.Lock()
	defer f.looking.Unlock()
	f.files, f.looked = files, files.Now()
	f.stamp = files.look() // before the files are read, so that a change in between is seen
	f.unsure = f.stamp.fresh(f.looked)
	id, err := files.load()
	if err != nil {
		return err
	}
	f.takeLocked(id, use)
	f.warnLocked(f.looked)
	return nil
}

// follow looks at the files, unless that was done within a second or is being done, and hands what they hold to use if
// that is something else than before.
func (f *followedFiles) follow(use func(identity)) {
	if f.files.CA == "" && f.files.Cert == "" || !f.looking.TryLock() {
		return
	}
	defer f.looking.Unlock()
	now := f.files.Now()
	// A clock that was set back must not end the looking.
	if since := now.Sub(f.looked); 0 <= since && since < lookEvery {
		return
	}
	f.looked = now
	defer f.warnLocked(now)
	stamp := f.files.look()
	changed := !stamp.same(f.stamp)
	if !changed && !f.unsure {
		return
	}
	f.stamp, f.unsure = stamp, stamp.fresh(now)
	id, err := f.files.load()
	if err != nil {
		// What kept us from reading, a lack of descriptors or of a permission, can end without a trace in the stamp.
		if _, ok := errors.AsType[*fs.PathError](err); ok {
			f.unsure = true
		}
		if changed || f.trouble != err.Error() {
			f.files.Log.Warn("certificate files refused, the earlier ones stay in use", zap.Error(err))
		}
		f.trouble = err.Error()
		return
	}
	f.trouble = ""
	if id.equal(f.used) {
		return
	}
	f.files.Log.Info("certificate files reloaded")
	f.takeLocked(id, use)
}

func (f *followedFiles) takeLocked(id identity, use func(identity)) {
	use(id)
	f.used, f.warned = id, valid
	// A key that others can read is no secret on this machine (T33), as the config says it of its secrets.
	if info := f.stamp[keyFile]; info != nil && info.Mode().Perm()&0o004 != 0 {
		f.files.Log.Warn("every user of this machine may read the key file", zap.String("path", f.files.Key))
	}
}

// validity is where now stands in the life of a certificate.
type validity uint8

const (
	valid validity = iota
	nearlyExpired
	expired
	notYetValid
)

func judgeValidity(leaf *x509.Certificate, now time.Time) validity {
	left := leaf.NotAfter.Sub(now)
	switch {
	case now.Before(leaf.NotBefore):
		return notYetValid
	case left < 0:
		return expired
	case left < min(nearEnd, leaf.NotAfter.Sub(leaf.NotBefore)/4):
		return nearlyExpired
	}
	return valid
}

// warnLocked says once of each certificate that it is near its end, once that it is beyond, and once that its time is to
// come.
func (f *followedFiles) warnLocked(now time.Time) {
	if f.used.cert == nil {
		return
	}
	leaf := f.used.cert.Leaf
	is := judgeValidity(leaf, now)
	if is == f.warned {
		return
	}
	f.warned = is
	log := f.files.Log.With(zap.Time("valid_from", leaf.NotBefore.UTC()), zap.Time("expires_at", leaf.NotAfter.UTC()))
	switch {
	case is == nearlyExpired && f.files.server:
		log.Warn("certificate expires soon")
	case is == nearlyExpired:
		log.Warn("client certificate expires soon")
	case is == expired && f.files.server:
		log.Error("certificate has expired")
	case is == expired:
		log.Warn("client certificate has expired")
	case is == notYetValid && f.files.server:
		log.Error("certificate is not valid yet")
	case is == notYetValid:
		log.Warn("client certificate is not valid yet")
	}
}
