package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store/badgerstore"
)

// fewInodes is how few further files a file system may take before it is worth a warning: the store makes some dozens.
const fewInodes = 1000

// folder looks at the folder of the store and at the disk that it is on.
func (d *doctor) folder(cfg *config.Config) {
	path := absolute(cfg.Store.Path)
	at := path // or what is there of it
	info, err := d.host.stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if at = d.parent(path); d.host.writable(at) {
			d.add("folder", relay.Fine, path+" is not there yet; the first start makes it", "")
		} else {
			d.add("folder", relay.Problem, fmt.Sprintf("%s is not there, and this account may not make it in %s", path, at),
				fmt.Sprintf("install -d -m 0700 -o %d %s, or name another folder in store.path", d.host.uid, path))
		}
	case err != nil:
		d.add("folder", relay.Problem, err.Error(), "let Postern's account enter the folders above it")
		return
	case !info.IsDir():
		d.add("folder", relay.Problem, path+" is not a folder", "move it away, or name another folder in store.path")
		return
	default:
		d.ownership(path, info)
	}
	d.fileSystem(at)
	d.disk(at, int64(cfg.Store.MinFree))
}

// parent returns the nearest folder above path that is there.
func (d *doctor) parent(path string) string {
	for up := filepath.Dir(path); ; up = filepath.Dir(up) {
		if _, err := d.host.stat(up); err == nil || up == filepath.Dir(up) {
			return up
		}
	}
}

// ownership looks at whose the folder is, and who else gets in.
func (d *doctor) ownership(path string, info fs.FileInfo) {
	before := len(d.findings)
	owner := -1
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(st.Uid)
	}
	switch {
	case !d.host.writable(path):
		d.add("folder", relay.Problem, fmt.Sprintf("%s belongs to user %d, and this account, user %d, may not write to it", path, owner, d.host.uid),
			fmt.Sprintf("chown -R %d %s, unless Postern runs as another account: then run doctor as that one", d.host.uid, path))
	case owner >= 0 && owner != d.host.uid && d.host.uid == 0:
		d.add("folder", relay.Warning, fmt.Sprintf("%s belongs to user %d, and doctor runs as root, who may do anything", path, owner),
			fmt.Sprintf("run it as that user, to see what Postern sees: setpriv --reuid %d --clear-groups postern doctor", owner))
	case owner >= 0 && owner != d.host.uid:
		d.add("folder", relay.Warning, fmt.Sprintf("%s belongs to user %d, and not to this account, user %d", path, owner, d.host.uid),
			fmt.Sprintf("chown -R %d %s, unless others need it so", d.host.uid, path))
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		d.add("folder", relay.Warning, fmt.Sprintf("%s is open to other users, with mode %#o", path, mode), "chmod 0700 "+path)
	}
	if n := openFilesIn(path); n > 0 {
		d.add("folder", relay.Warning, fmt.Sprintf("%s in %s can be read by other users", count(n, "file"), path), "chmod -R go= "+path)
	}
	if len(d.findings) == before {
		d.add("folder", relay.Fine, fmt.Sprintf("%s, mode %#o, belongs to this account", path, info.Mode().Perm()), "")
	}
}

// openFilesIn counts the files of a store that others may read, as far as they can be seen.
func openFilesIn(path string) int {
	n := 0
	_ = filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			n++
		}
		return nil
	})
	return n
}

// fileSystem says whether the store may be kept there.
func (d *doctor) fileSystem(path string) {
	kind, name, err := d.host.fileSystem(path)
	switch {
	case err != nil:
		d.add("file system", relay.Warning, err.Error(), "see by hand that it is a local one: df -T "+path)
	case kind == networkFS:
		d.add("file system", relay.Problem, path+" is on "+name+": its locks and syncs do not promise what a store needs",
			"put store.path on a local disk (ext4, xfs)")
	case kind == layerFS:
		d.add("file system", relay.Warning, path+" is on "+name+", the container's own layer: what is kept there goes with the container",
			"mount a volume there")
	case kind == memoryFS:
		d.add("file system", relay.Warning, path+" is on "+name+", in memory: what is kept there goes with a restart of the machine",
			"mount a volume there")
	case kind == unknownFS:
		d.add("file system", relay.Fine, path+" is on "+name+", which is not known here; it must be a local one", "")
	default:
		d.add("file system", relay.Fine, path+" is on "+name, "")
	}
}

// disk compares the free space with what the store keeps for itself.
func (d *doctor) disk(path string, minFree int64) {
	space, err := d.host.space(path)
	if err != nil {
		d.add("disk", relay.Problem, err.Error(), "see by hand how much is free: df "+path)
		return
	}
	reserve, least := badgerstore.Reserve(minFree), badgerstore.Reserve(1)
	detail := fmt.Sprintf("%s free, and the reserve is %s", amount(space.free), amount(reserve))
	if reserve > minFree {
		detail += fmt.Sprintf(", which the store needs whatever store.min_free says (%d MiB)", minFree>>20)
	}
	switch {
	case space.free < reserve && space.free >= least:
		d.add("disk", relay.Problem, detail+": posts are answered with 507",
			fmt.Sprintf("make room on the disk of %s, or lower store.min_free, to %s at the least", path, amount(least)))
	case space.free < reserve:
		d.add("disk", relay.Problem, detail+": posts are answered with 507", "make room on the disk of "+path)
	case space.free < 2*reserve:
		d.add("disk", relay.Warning, detail+": posts are answered with 507 when it is reached", "make room on the disk of "+path)
	default:
		d.add("disk", relay.Fine, detail, "")
	}
	if space.files > 0 && space.freeFiles < fewInodes {
		d.add("disk", relay.Warning, fmt.Sprintf("the file system takes %d more files only", space.freeFiles), "remove files there that nobody needs: df -i "+path)
	}
}

// askTime bounds the question to a running Postern.
const askTime = 5 * time.Second

// store looks at the store, or asks the Postern that has it open, and reports whether there is one, and what that one says
// of its certificates.
func (d *doctor) store(ctx context.Context, cfg *config.Config, plan *relay.Plan) (runs bool, trouble []string) {
	found, err := badgerstore.Inspect(badgerstore.Options{Path: cfg.Store.Path, Keys: plan.StoreKeys()})
	if errors.Is(err, badgerstore.ErrLocked) {
		return true, d.running(ctx, err)
	}
	if errors.Is(err, badgerstore.ErrRestoring) {
		detail, advice := partsOf(err.Error())
		d.add("store", relay.Problem, detail, advice)
		return false, nil
	}
	if damaged, ok := errors.AsType[*badgerstore.DamageError](err); ok {
		d.add("store", relay.Problem, damaged.Error(), `see "A damaged store" in docs/operations.md, and copy the folder away first`)
		return false, nil
	}
	if key, ok := errors.AsType[*badgerstore.KeyError](err); ok {
		d.add("store", relay.Problem, key.Error(), `see "Encryption at rest" in docs/backup.md`)
		return false, nil
	}
	switch {
	case err != nil:
		d.add("store", relay.Problem, err.Error(), "run doctor as Postern's account")
		return false, nil
	case !found.Exists:
		d.add("store", relay.Fine, "there is none yet", "")
		return false, nil
	}
	text := fmt.Sprintf("no process has it open; %s with right checksums, %s", count(found.Tables, "table"), amount(found.Bytes))
	switch {
	case found.Encrypted && found.KeysKnown:
		text += ", encrypted, and the keys fit"
	case found.Encrypted:
		d.add("store", relay.Warning, `it is encrypted, and whether the keys fit is not known here: its file "keys", which says what it needs, is empty or damaged`,
			"start Postern: with the right keys it writes the file anew; with others it exits with 6, changes nothing, and names those it needs")
	}
	d.add("store", relay.Fine, text+"; whether each commit is there is for a start to see", "")
	if found.Log > 0 {
		d.add("store", relay.Fine, fmt.Sprintf("the last process did not close it and has left %s in the log, which the next start reads; nothing is lost by that",
			amount(found.Log)), "")
	}
	d.lastWrite(found.LastWrite)
	return false, nil
}

// running asks a Postern that has the store open how it does, and returns what it says of its certificates.
func (d *doctor) running(ctx context.Context, locked error) (trouble []string) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err := d.client.Health(ctx)
	unready, ok := errors.AsType[*admin.NotReady](err)
	switch {
	case err != nil && !ok:
		d.add("store", relay.Problem, fmt.Sprintf("%v; asked whether it is ready: %v", locked, err),
			"look at that process and its log; name its admin listener by --admin if it is another")
		return nil
	case ok && len(unready.Full) > 0:
		d.add("store", relay.Problem, "a running Postern has it open, and takes no messages: "+strings.Join(unready.Full, "; "),
			`see "The disk" and "A backlog" in docs/operations.md, and its log`)
		return unready.HTTPS
	case ok:
		trouble = unready.HTTPS
	}
	text := "a running Postern has it open, and is ready"
	if ok {
		text = "a running Postern has it open, and takes messages" // though not all of them, from other hosts
	}
	o, err := d.client.Overview(ctx) // which may need a token
	if err == nil {
		text += fmt.Sprintf("; %s pending", count(int(o.Pending), "delivery"))
	}
	d.add("store", relay.Fine, text, "")
	refused, ok := errors.AsType[*admin.Refusal](err)
	if ok && d.client.Token != "" && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusTooManyRequests) {
		d.add("admin", relay.Problem, "its admin listener does not take the token given here: "+refused.Detail,
			"compare the token with listen.admin_tokens of the Postern that runs; it is from --admin-token-file, else from "+envAdminToken+", else from the config")
	}
	return trouble
}

// lastWrite holds the clock against the newest file of the store.
func (d *doctor) lastWrite(at time.Time) {
	const slack = time.Minute // a step of that size does no harm
	if ahead := at.Sub(d.now()); !at.IsZero() && ahead > slack {
		d.add("clock", relay.Warning, fmt.Sprintf("the store was last written at %s, which is %s ahead: the clock has been set back since, or is wrong now",
			at.UTC().Format(time.RFC3339), span(ahead)), "set the clock; until then, deliveries wait for that much longer")
	}
}

// writable reports whether this account may make and remove files in a folder.
func writable(path string) bool { return unix.Access(path, unix.W_OK|unix.X_OK) == nil }
