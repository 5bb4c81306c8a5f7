package relay

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/postern-relay/postern/relay/guard"
)

const (
	protobufType     = "application/x-protobuf"
	maxExportAnswer  = 64 << 10 // bytes that are read of an answer
	maxExportMessage = 200      // bytes of what a collector says that are kept
	minExportSecret  = 6        // bytes from which on a part of a header's value is masked in that
)

// uploader speaks OTLP over HTTP. otlptracehttp would do so too, but obeys a dozen variables of the environment, among
// them addresses, headers and certificates, and brings gRPC with it.
type uploader struct {
	endpoint string
	header   http.Header
	secrets  []string // of the header, whoever repeats them; longest first
	client   *http.Client
}

var _ otlptrace.Client = (*uploader)(nil)

func newUploader(o tracing) *uploader {
	u := &uploader{endpoint: o.endpoint.String(), header: o.header.Clone(), client: guard.NewCollectorClient(o.endpoint, o.collector)}
	for _, values := range o.header {
		for _, v := range values {
			u.secrets = append(append(u.secrets, v), strings.Fields(v)...) // a token without its scheme too
		}
	}
	u.secrets = slices.DeleteFunc(u.secrets, func(s string) bool { return len(s) < minExportSecret })
	slices.SortFunc(u.secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	u.header.Set("Content-Type", protobufType)
	if u.header.Get("User-Agent") == "" {
		u.header.Set("User-Agent", o.userAgent)
	}
	return u
}

// Start implements otlptrace.Client.
func (*uploader) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (*uploader) Stop(context.Context) error { return nil }

// uploadError says why spans did not arrive. It holds nothing of the request.
type uploadError struct {
	temporary  bool          // to be tried again
	retryAfter time.Duration // not before; 0 if the collector did not say
	err        error
}

func (e *uploadError) Error() string { return e.err.Error() }

func (e *uploadError) Unwrap() error { return e.err }

// rejectedError says that a collector has taken the request but not all of its spans, or has something to say.
type rejectedError struct {
	spans   int64
	message string
}

func (e *rejectedError) Error() string {
	return fmt.Sprintf("the collector rejected %d spans: %q", e.spans, e.message)
}

// UploadTraces implements otlptrace.Client. Its errors are *uploadError and *rejectedError.
func (u *uploader) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// The same on the wire as an ExportTraceServiceRequest, whose package needs gRPC.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return &uploadError{err: fmt.Errorf("encode spans: %w", err)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.endpoint, bytes.NewReader(body))
	if err != nil {
		return &uploadError{err: fmt.Errorf("make request: %w", err)}
	}
	req.Header = u.header.Clone()
	resp, err := u.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		_, refused := errors.AsType[*guard.BlockedError](err)
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		// net/http quotes what it cannot read of an answer.
		return &uploadError{temporary: !refused, err: errors.New(u.shown(err.Error()))}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxExportAnswer))
	if resp.StatusCode/100 == 2 {
		if err != nil || resp.Header.Get("Content-Type") != protobufType {
			return nil // that of the status is enough
		}
		err := partialSuccess(answer)
		if rejected, ok := errors.AsType[*rejectedError](err); ok {
			rejected.message = u.shown(rejected.message)
		}
		return err
	}
	failed := &uploadError{err: fmt.Errorf("the collector answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		// OTLP specification, "Failures": these and no others are to be tried again.
		failed.temporary = true
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
			failed.retryAfter = time.Duration(min(seconds, 3600)) * time.Second
		}
	}
	return failed
}

// shown is a text that the collector may have a part in, without what the header says, and cut. Logs outlive secrets.
func (u *uploader) shown(text string) string {
	for _, secret := range u.secrets {
		text = strings.ReplaceAll(text, secret, "***")
	}
	if len(text) > maxExportMessage {
		text = strings.ToValidUTF8(text[:maxExportMessage], "") + "…"
	}
	return text
}

// partialSuccess reads the answer to an export, an ExportTraceServiceResponse. It returns nil if all is well, and for what
// it cannot read.
func partialSuccess(answer []byte) error {
	var e rejectedError
	eachField(answer, func(number protowire.Number, value []byte, _ uint64) {
		if number != 1 { // partial_success
			return
		}
		eachField(value, func(number protowire.Number, text []byte, n uint64) {
			switch number {
			case 1: // rejected_spans
				e.spans = min(max(int64(n), 0), maxSpanBatch)
			case 2: // error_message
				e.message = strings.ToValidUTF8(string(text), "")
			}
		})
	})
	if e == (rejectedError{}) {
		return nil
	}
	return &e
}

// eachField calls visit for each field of an encoded message that is bytes or a varint, up to what it cannot read.
func eachField(raw []byte, visit func(number protowire.Number, value []byte, n uint64)) {
	for len(raw) > 0 {
		number, kind, size := protowire.ConsumeTag(raw)
		if size < 0 {
			return
		}
		raw = raw[size:]
		switch kind {
		case protowire.BytesType:
			value, size := protowire.ConsumeBytes(raw)
			if size < 0 {
				return
			}
			visit(number, value, 0)
			raw = raw[size:]
		case protowire.VarintType:
			n, size := protowire.ConsumeVarint(raw)
			if size < 0 {
				return
			}
			visit(number, nil, n)
			raw = raw[size:]
		default:
			size := protowire.ConsumeFieldValue(number, kind, raw)
			if size < 0 {
				return
			}
			raw = raw[size:]
		}
	}
}
