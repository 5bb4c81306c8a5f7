package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const (
	// countsHeader of a backup's answer says what is in it, in JSON.
	countsHeader = "Postern-Backup-Counts"

	// backupStall is how long a piece of a backup may take on its way.
	backupStall = time.Minute
	backupPiece = 1 << 20
)

// backupRequest asks for a backup.
type backupRequest struct {
	// IncludeKeys takes in the accounts and private keys of certificates.
	IncludeKeys bool `json:"include_keys,omitempty"`
}

// sending completes an operation that takes a body and answers no JSON value.
func sending[Body any](op operation, f func(*Handler, http.ResponseWriter, *http.Request, input[none, Body]) error) operation {
	op.query, op.body = reflect.TypeFor[none](), reflect.TypeFor[Body]()
	op.serve = func(h *Handler, op *operation, w http.ResponseWriter, r *http.Request, segment string) error {
		in, err := read[none, Body](h, op, r, segment)
		if err != nil {
			return err
		}
		if err := extend(w, op.lasts); err != nil {
			return err
		}
		return f(h, w, r, in)
	}
	return op
}

// backup answers with a copy of the store, which is complete before its first byte is sent: a slow client costs nothing
// but the disk that the copy takes.
func (h *Handler) backup(w http.ResponseWriter, r *http.Request, in input[none, backupRequest]) error {
	if h.Backups == nil {
		return problem.New(http.StatusNotImplemented, "the engine of this store is copied by its own means")
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), backupTimeout, errors.New("the backup took too long"))
	defer cancel()
	b, err := h.Backups.Backup(ctx, store.BackupOptions{IncludeKeys: in.Body.IncludeKeys})
	if err != nil {
		if errors.Is(err, store.ErrNoSpace) {
			return &problem.Error{Status: http.StatusInsufficientStorage, Cause: err, Detail: "there is not enough free disk for a " +
				"backup above the reserve: it takes as much as there is data while it is sent; make room, or stop " +
				"Postern and use postern backup --store"}
		}
		return refused(err)
	}
	defer b.Close()
	counts, err := json.Marshal(b.Counts)
	if err != nil {
		return err
	}
	setHeaders(w.Header(), rawType)
	w.Header().Set("Content-Length", strconv.FormatInt(b.Size, 10))
	w.Header().Set("Content-Disposition", `attachment; filename="postern-`+h.now().UTC().Format("20060102T150405Z")+`.backup"`)
	w.Header().Set(countsHeader, string(counts))
	w.WriteHeader(http.StatusOK)
	from := &watchedReader{Reader: b}
	for err == nil {
		if err := extend(w, backupStall); err != nil {
			return err
		}
		_, err = io.CopyN(w, from, backupPiece)
	}
	if from.err != nil {
		return fmt.Errorf("read backup: %w", from.err)
	}
	return nil // or the client is gone: what is cut short is told by its length
}

// watchedReader keeps the error of reading apart from that of whoever it is read for.
type watchedReader struct {
	io.Reader
	err error // other than io.EOF
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// Backup has the relay make a backup, and writes it to w. What w has got is a whole backup only if there is no error. It
// ends when nothing has come for some minutes; making the backup may take an hour. Timeout does not matter to it.
func (c Client) Backup(ctx context.Context, includeKeys bool, w io.Writer) (counts store.BackupCounts, size int64, err error) {
	fail := func(err error) (store.BackupCounts, int64, error) {
		return store.BackupCounts{}, 0, fmt.Errorf("back up through %s: %w", c.Address, err)
	}
	body, err := json.Marshal(backupRequest{IncludeKeys: includeKeys})
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(backupTimeout, func() { cancel(fmt.Errorf("no answer within %v", backupTimeout)) })
	defer late.Stop()
	resp, err := c.open(ctx, http.MethodPost, backupPath, body)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes))
		if err != nil {
			return fail(failure(ctx, err))
		}
		return fail(refusal(resp.StatusCode, answer))
	}
	if err := json.Unmarshal([]byte(resp.Header.Get(countsHeader)), &counts); err != nil || resp.ContentLength < 0 {
		return fail(foreign(resp.StatusCode))
	}
	for {
		late.Reset(2 * backupStall)
		n, err := io.CopyN(w, resp.Body, backupPiece)
		size += n
		switch {
		case errors.Is(err, io.EOF) && size == resp.ContentLength:
			return counts, size, nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fail(fmt.Errorf("%w, after %d of %d bytes", ErrCut, size, resp.ContentLength))
		case err != nil:
			return fail(failure(ctx, err))
		}
	}
}
