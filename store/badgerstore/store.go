// Package badgerstore keeps messages in an embedded Badger database, and answers for what Badger alone does not
// promise: one sync for all that waits (commit.go), a check at each start that nothing has been lost (gate.go), a
// checksum on every record (codec.go), and a disk reserve, since a full disk would kill the process (docs/badger.md,
// "Full disk").
//
// The folder of a store:
//
//	lock        held by the process that has the store open
//	badger/     Badger's files, and nothing else
//	hwm         the number of the last commit group (sidefile.go)
//	keys        which keys it is encrypted with, if it is (keysfile.go)
//	restoring/  what a restore has made so far (restore.go)
//	damage      what an earlier start has found, until the loss is accepted or the files have changed
//	set-aside/  copies and strays: start/ while a start is under way or has failed, others for ever
//
// The main type is [Store]. One goroutine writes, many read.
package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// Options say where and how a store is kept.
type Options struct {
	Path string // the store's folder, made with mode 0700 if it is not there; required

	// MinFree is the number of bytes to leave free on the disk: below it Accept returns store.ErrNoSpace, and below half
	// of it nothing is written but what makes room. 0 means 256 MiB. Less than the 224 MiB that Badger needs for itself
	// counts as those, with a warning.
	MinFree int64

	MaxPending int64 // most pending deliveries: above it Accept returns store.ErrBacklog; 0 means 1,000,000
	AcceptLoss bool  // serve a store that a start has found damaged, without what it has lost

	// Keys encrypt the store: the first what is written, the others are earlier ones, whose values are encrypted anew in
	// the background (docs/badger.md, "Encryption"). At most 16. Empty for a store that is not encrypted.
	Keys []store.Key

	Now func() time.Time // wall clock; nil means time.Now
	Log *zap.Logger      // nil means none

	// Metrics is where the store's metrics are registered, which shows those of one store only; nil means nowhere.
	Metrics prometheus.Registerer

	free   func(path string) (int64, error) // tests: free space in bytes; nil means freeSpace
	commit func(*badger.Txn) error          // tests: commits a group; nil means (*badger.Txn).Commit
}

// Badger's sizes; docs/badger.md, "Memory", says what they cost. A value of almost valueThreshold must fit into 15 % of
// a memtable.
const (
	memTableSize   = 8 << 20
	memTables      = 2
	tableSize      = 4 << 20
	levelSize      = 16 << 20
	blockSize      = 64 << 10
	levelZero      = 2
	levelZeroStall = 3       // with 4, Badger may merge them into one table of any size
	valueThreshold = 1 << 20 // a value of this size would go to the value log, which must stay empty (docs/badger.md, "Value log")

	// floor is what Badger may write to disk before it gives any back: memtables, the first level and what it is merged
	// with, and as much for a merge of larger tables (docs/badger.md, "Full disk").
	floor = 224 << 20

	defaultMinFree = 256 << 20

	closeTimeout = 15 * time.Second
)

// Store is a store.Store in a folder. Open makes one. Its methods may be called from several goroutines.
type Store struct {
	path       string
	log        *zap.Logger
	now        func() time.Time
	maxPending int64
	reserve    int64
	freeSpace  func(path string) (int64, error)
	commitTxn  func(*badger.Txn) error
	metrics    *metrics

	lock         *os.File
	dir          *os.File  // Badger's folder, to sync it
	folderSynced time.Time // of the latest change of it whose entries are on disk; zero: not known. Owned by the committer
	db           *database
	keys         *keyring
	side         *sideFile

	maxGroupSize    int64
	maxGroupEntries int64
	requests        chan *request
	committer       sync.WaitGroup
	seq             uint64       // of the last commit group; owned by the committer
	pending         atomic.Int64 // written by the committer, and corrected by counter
	backlog         backlog
	counter         sync.WaitGroup
	settling        settling
	skew            atomic.Int64 // of the clock, in milliseconds; written by the committer
	recent          *recent      // records of messages
	heads           *heads       // of the queues of destinations
	ended           *heads       // of the sweep's index

	needed   atomic.Pointer[[]keyID] // keys that the store needs, the first its own; never changed in place
	rotation sync.WaitGroup
	copying  atomic.Bool // a backup is being made or read

	free   atomic.Int64 // bytes, at the last look
	low    atomic.Bool  // free was below the reserve
	stop   chan struct{}
	looker sync.WaitGroup

	use    sync.RWMutex // held by every call while it runs; Close takes it for itself
	closed atomic.Bool

	failure sync.Mutex // guards err and damaged
	err     error
	damaged map[string]bool // keys of damaged records that have been logged
	broken  chan struct{}   // closed with err set
}

var _ store.Store = (*Store)(nil)

// Open opens the store in a folder, or makes one. It checks first that nothing of what the store has accepted is
// missing. The caller closes the Store.
//
// Errors: ErrLocked if another process has it open, a *KeyError if it needs other keys, a *DamageError if something is
// missing, store.ErrNoSpace if there is too little disk to open it safely.
func Open(o Options) (*Store, error) {
	s := &Store{
		path: o.Path, log: o.Log, now: o.Now, maxPending: o.MaxPending, reserve: o.MinFree, freeSpace: o.free, commitTxn: o.commit,
		requests: make(chan *request, groupRequests), broken: make(chan struct{}), stop: make(chan struct{}),
		damaged: make(map[string]bool),
		backlog: backlog{counts: make(map[string]int64), counted: make(chan struct{})},
		recent:  newRecent(),
		heads:   newHeads(func(key []byte) int { return len(key) - 8 - 16 }),
		ended:   newHeads(func([]byte) int { return 1 }),
	}
	if o.Path == "" {
		return nil, errors.New("open store: no path")
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.maxPending == 0 {
		s.maxPending = 1_000_000
	}
	if s.reserve == 0 {
		s.reserve = defaultMinFree
	}
	if s.reserve < floor {
		s.log.Warn("the reserve of free disk space is raised to what the database needs",
			zap.Int64("min_free_bytes", s.reserve), zap.Int64("reserve_bytes", floor))
		s.reserve = floor
	}
	if s.freeSpace == nil {
		s.freeSpace = freeSpace
	}
	if s.commitTxn == nil {
		s.commitTxn = s.commitSettled
	}
	var err error
	if s.keys, err = newKeyring(o.Keys, forValues); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if s.metrics, err = newMetrics(o.Metrics, s); err != nil {
		return nil, err
	}
	if err := s.open(o.AcceptLoss); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) open(acceptLoss bool) (err error) {
	if err := makeFolder(s.path); err != nil {
		return err
	}
	if s.lock, err = lock(filepath.Join(s.path, "lock")); err != nil {
		return fmt.Errorf("%q: %w", s.path, err)
	}
	gate := &gate{path: s.path, log: s.log, now: s.now, acceptLoss: acceptLoss, free: s.freeSpace, keys: s.keys}
	defer func() {
		if err != nil {
			err = errors.Join(gate.failed(err), s.closeFiles(), gate.closed(), s.lock.Close())
		}
	}()
	if err := finishRestore(s.path); err != nil {
		return err
	}
	needed, known, err := gate.checkKeys()
	if err != nil {
		return err
	}
	if err := removeSpools(s.path); err != nil {
		return err
	}
	s.closeModes()
	side, err := gate.before()
	if err != nil {
		return err
	}
	if needed, err = gate.noteKeys(needed, known); err != nil {
		return err
	}
	if s.db, err = openBadger(gate.badgerPath(), s.keys, s.log); err != nil {
		return err
	}
	s.db.bridge.onManifest(func(cause error) { _ = s.fail(cause) })
	state, err := gate.after(s.db, side)
	if needed, err = gate.opened(s.db, needed, known, err); err != nil {
		return err
	}
	s.needed.Store(&needed)
	if s.dir, err = os.Open(gate.badgerPath()); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	s.seq = state.seq
	s.pending.Store(state.pending)
	skew, err := readSkew(s.db)
	if err != nil {
		s.log.Error("note of the clock cannot be read, searches by time take longer", zap.Error(err))
		skew = int64(time.Duration(1<<62) / time.Millisecond)
	}
	s.skew.Store(skew)
	if s.side, err = openSide(gate.sidePath()); err != nil {
		return err
	}
	s.maxGroupSize = min(groupSize, s.db.MaxBatchSize()*9/10)
	s.maxGroupEntries = s.db.MaxBatchCount() * 9 / 10
	s.committer.Go(s.commitLoop)
	err = s.finishBatches()
	if err == nil {
		err = s.mendLines()
	}
	if err != nil {
		close(s.requests)
		if s.Err() == nil { // else a commit may hang
			s.committer.Wait()
		}
		return err
	}
	s.beginCount()
	s.look()
	s.looker.Go(s.lookLoop)
	s.looker.Go(s.trimLoop)
	s.looker.Go(s.settleLoop)
	if len(needed) > 1 {
		s.rotation.Go(s.rotate)
	}
	s.log.Info("store opened", zap.String("path", s.path), zap.Int64("pending", s.pending.Load()), zap.Uint64("commits", state.seq))
	return nil
}

// openBadger opens Badger's folder with the options that docs/badger.md explains. What Badger cannot make sense of, and
// what it gives up with a panic, is damage; what the system refuses is not.
func openBadger(path string, keys *keyring, log *zap.Logger) (opened *database, err error) {
	defer func() {
		if r := recover(); r != nil {
			opened, err = nil, &DamageError{Path: filepath.Dir(path), Reason: fmt.Sprintf("the database cannot be opened: %v", r)}
		}
	}()
	bridge := &badgerLogger{log: log}
	db, err := badger.Open(badgerOptions(path).WithLogger(bridge))
	if table := bridge.ignored(); table != "" {
		// Badger goes on without a table that it cannot read. We do not.
		if err == nil {
			_ = db.Close()
		}
		return nil, &DamageError{Path: filepath.Dir(path), Reason: "a table of the database cannot be read: " + table}
	}
	if _, system := errors.AsType[syscall.Errno](err); err != nil && !system {
		return nil, &DamageError{Path: filepath.Dir(path), Reason: "the database cannot be opened: " + err.Error()}
	}
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return &database{DB: db, keys: keys, bridge: bridge}, nil
}

func badgerOptions(path string) badger.Options {
	o := badger.DefaultOptions(path)
	o.TableSizeMultiplier = 1 // there is no With for it
	return o.
		WithSyncWrites(true).
		WithDetectConflicts(false). // one goroutine writes
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(16 << 20).
		WithMemTableSize(memTableSize).
		WithNumMemtables(memTables).
		WithBaseTableSize(tableSize).
		WithBaseLevelSize(levelSize).
		WithNumCompactors(2).
		WithNumLevelZeroTables(levelZero).
		WithNumLevelZeroTablesStall(levelZeroStall).
		WithCompression(options.None).
		WithBlockSize(blockSize).
		WithBlockCacheSize(0). // blocks are read in place
		WithIndexCacheSize(0).
		WithChecksumVerificationMode(options.NoVerification). // verifyTables has done it; each record is checked when read
		WithVerifyValueChecksum(true).
		WithNumVersionsToKeep(1).
		WithCompactL0OnClose(false).
		WithMetricsEnabled(false)
}

// begin is the first thing in every call, and s.use.RUnlock the last.
func (s *Store) begin(ctx context.Context) error {
	s.use.RLock()
	err := ctx.Err()
	if s.closed.Load() {
		err = store.ErrClosed
	}
	if err == nil {
		err = s.Err()
	}
	if err != nil {
		s.use.RUnlock()
	}
	return err
}

// Broken implements store.Store.
func (s *Store) Broken() <-chan struct{} { return s.broken }

// Err implements store.Store.
func (s *Store) Err() error {
	s.failure.Lock()
	defer s.failure.Unlock()
	return s.err
}

// Close waits for the calls in progress and closes the files. A broken store is left as the end of the process would
// leave it: what it has acknowledged is in the log, and writing more to a failing disk helps nobody. Closing takes
// 15 s at most; after that it returns an error, and the process may end without loss. A second Close does nothing.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- s.shut() }()
	// A sync may hang, and Badger tries for ever to write out a memtable (docs/badger.md, "Messages and stopping").
	// Then the goroutines stay behind until the process ends.
	late := time.NewTimer(closeTimeout)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		err := fmt.Errorf("close store: not done after %s; nothing is lost, the next start reads its log", closeTimeout)
		_ = s.fail(err) // those who wait for a commit go
		return err
	}
}

func (s *Store) shut() error {
	s.use.Lock()
	close(s.requests) // nobody sends any more: every sender holds use
	s.use.Unlock()
	s.committer.Wait()
	close(s.stop)
	s.counter.Wait()
	s.looker.Wait()
	s.rotation.Wait()
	return errors.Join(s.closeFiles(), s.lock.Close())
}

// closeFiles closes whatever has been opened behind the lock.
func (s *Store) closeFiles() error {
	var errs []error
	if s.db != nil && s.Err() == nil {
		if err := s.db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close database: %w", err))
		}
	}
	if s.side != nil {
		errs = append(errs, s.side.close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}
