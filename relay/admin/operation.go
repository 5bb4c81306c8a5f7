package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/postern-relay/postern/relay/problem"
)

const (
	maxBodyBytes   = 64 << 10 // of a request, if its operation does not say otherwise
	maxSampleBytes = 2 << 20  // of a request that brings the body of a message
	jsonType       = "application/json"
)

// operation is one method of one path of the API: how it is answered, and what the description says of it.
type operation struct {
	id      string // for programs that are made from the description
	method  string
	path    string // one segment may be {name} or {id}
	summary string // one sentence
	detail  string // more of them, or empty

	query    reflect.Type // struct whose fields are the parameters of the query
	body     reflect.Type // struct of the request's body; none for no body
	answer   reflect.Type // struct of the answer's body; nil if that is not JSON
	media    string       // type of the answer's body if that is not JSON
	refusals []int        // statuses of its problems, beside those that every operation may have
	limit    int64        // most bytes of the request's body; 0 means maxBodyBytes

	// lasts is how long it may take; 0 means as long as the server gives a request.
	lasts time.Duration

	serve func(h *Handler, op *operation, w http.ResponseWriter, r *http.Request, segment string) error
}

// none stands for a query without parameters, and for no body.
type none struct{}

// input is what a request says.
type input[Query, Body any] struct {
	Segment string // of the path: the name or the id
	Query   Query
	Body    Body
}

// answering completes an operation that answers a value as JSON.
func answering[Query, Body, Answer any](op operation, f func(*Handler, context.Context, input[Query, Body]) (Answer, error)) operation {
	op.query, op.body, op.answer = reflect.TypeFor[Query](), reflect.TypeFor[Body](), reflect.TypeFor[Answer]()
	op.serve = func(h *Handler, op *operation, w http.ResponseWriter, r *http.Request, segment string) error {
		in, err := read[Query, Body](h, op, r, segment)
		if err != nil {
			return err
		}
		if op.lasts > 0 {
			if err := extend(w, op.lasts); err != nil {
				return err
			}
		}
		answer, err := f(h, r.Context(), in)
		if err != nil {
			return err
		}
		return write(w, http.StatusOK, answer)
	}
	return op
}

// extend lets a request go on beyond the server's bounds, once it has been read: at the end of the time for reading, the
// server would take it for abandoned.
func extend(w http.ResponseWriter, lasts time.Duration) error {
	control, end := http.NewResponseController(w), time.Now().Add(lasts)
	err := errors.Join(control.SetReadDeadline(end), control.SetWriteDeadline(end))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("extend the time of a request: %w", err)
	}
	return nil
}

// writing completes an operation whose answer is no JSON value.
func writing[Query any](op operation, f func(*Handler, http.ResponseWriter, *http.Request, input[Query, none]) error) operation {
	op.query, op.body = reflect.TypeFor[Query](), reflect.TypeFor[none]()
	op.serve = func(h *Handler, op *operation, w http.ResponseWriter, r *http.Request, segment string) error {
		in, err := read[Query, none](h, op, r, segment)
		if err != nil {
			return err
		}
		return f(h, w, r, in)
	}
	return op
}

// describing tells the description the type of an answer that is written by hand.
func describing[Answer any](op operation) operation {
	op.answer = reflect.TypeFor[Answer]()
	return op
}

// api answers what is below apiPath.
func (h *Handler) api(w http.ResponseWriter, r *http.Request) error {
	h.once.Do(func() { h.routes = operations() })
	var allowed []string
	for i := range h.routes {
		op := &h.routes[i]
		segment, ok := op.matches(r.URL.EscapedPath())
		if !ok {
			continue
		}
		if r.Method == op.method || r.Method == http.MethodHead && op.method == http.MethodGet {
			return op.serve(h, op, w, r, segment)
		}
		allowed = append(allowed, op.method)
		if op.method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	if len(allowed) > 0 {
		return wrongMethod(r, strings.Join(allowed, ", "))
	}
	return problem.New(http.StatusNotFound, "there is nothing at this path; %s lists what there is", openAPIPath)
}

// matches reports whether an escaped path is the operation's, and returns what stands for its {…}, unescaped.
func (op *operation) matches(escaped string) (segment string, ok bool) {
	pattern := op.path
	for pattern != "" {
		want, rest, _ := strings.Cut(pattern[1:], "/")
		if rest != "" {
			rest = "/" + rest
		}
		if escaped == "" || escaped[0] != '/' {
			return "", false
		}
		got, left, more := strings.Cut(escaped[1:], "/")
		if more {
			left = "/" + left
		}
		if want[0] == '{' {
			text, err := url.PathUnescape(got)
			if err != nil || text == "" {
				return "", false
			}
			segment = text
		} else if got != want {
			return "", false
		}
		pattern, escaped = rest, left
	}
	return segment, escaped == ""
}

// parameter returns the name of what stands in the path, or nothing.
func (op *operation) parameter() string {
	_, after, _ := strings.Cut(op.path, "{")
	name, _, _ := strings.Cut(after, "}")
	return name
}

func read[Query, Body any](h *Handler, op *operation, r *http.Request, segment string) (input[Query, Body], error) {
	in := input[Query, Body]{Segment: segment}
	if err := h.readQuery(r.URL.RawQuery, reflect.ValueOf(&in.Query).Elem()); err != nil {
		return in, err
	}
	limit := op.limit
	if limit == 0 {
		limit = maxBodyBytes
	}
	return in, h.readBody(r, limit, &in.Body)
}

// readQuery sets the fields of a struct, texts and pointers to numbers, by the parameters of their names.
func (h *Handler) readQuery(raw string, into reflect.Value) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return problem.New(http.StatusBadRequest, "the query is malformed; write name=value, with %% and & escaped")
	}
	known := keysOf(into.Type())
	for name, list := range values {
		at := slices.Index(known, name)
		switch {
		case at < 0:
			return problem.New(http.StatusBadRequest, "there is no query parameter %.100q here%s", name, h.suggest(name, known))
		case len(list) > 1:
			return problem.New(http.StatusBadRequest, "the query parameter %q is there %d times; send it once", name, len(list))
		case list[0] == "":
			continue // as a form sends a field that was not filled in
		}
		field := into.FieldByIndex(keyedFields(into.Type())[at].Index)
		if field.Kind() == reflect.String {
			field.SetString(list[0])
			continue
		}
		n, err := strconv.ParseInt(list[0], 10, 32)
		if err != nil {
			return problem.New(http.StatusBadRequest, "%s is %.50q; write a whole number", name, list[0])
		}
		number := int(n)
		field.Set(reflect.ValueOf(&number))
	}
	return nil
}

// keyedFields returns the fields of a struct, those of embedded structs in their place.
func keyedFields(t reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Anonymous })
}

// keysOf returns the JSON keys of a struct's fields, in their order.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range keyedFields(t) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		keys = append(keys, key)
	}
	return keys
}

// suggest ends the text of a refusal of a word.
func (h *Handler) suggest(word string, known []string) string {
	switch {
	case len(known) == 0:
		return "; leave it out"
	case h.Nearest != nil && h.Nearest(word, known) != "":
		return fmt.Sprintf("; did you mean %q?", h.Nearest(word, known))
	}
	return "; there are " + strings.Join(known, ", ")
}

// readBody decodes a body strictly: no key that is not known, none twice, nothing behind the value. An empty body is
// an empty object.
func (h *Handler) readBody(r *http.Request, limit int64, into any) error {
	if r.ContentLength > limit {
		return problem.New(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes; send less", limit).Closing()
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return problem.New(http.StatusBadRequest, "the body ended early; send it again").Closing()
	case int64(len(body)) > limit:
		return problem.New(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes; send less", limit).Closing()
	case len(body) == 0:
		return nil
	}
	err = jsonv2.Unmarshal(body, into, jsonv2.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	keys := keysOf(reflect.TypeOf(into).Elem())
	form := "an object with the keys " + strings.Join(keys, ", ")
	if len(keys) == 0 {
		form = "empty"
	}
	if fault, ok := errors.AsType[*jsonv2.SemanticError](err); ok && fault.JSONPointer != "" {
		at := string(fault.JSONPointer)
		if errors.Is(err, jsonv2.ErrUnknownName) {
			return problem.New(http.StatusBadRequest, "the key %.100q of the body is not known here; it is %s", at, form)
		}
		return problem.New(http.StatusBadRequest, "the value at %.100q of the body has a wrong type; see %s", at, openAPIPath)
	}
	return problem.New(http.StatusBadRequest, "the body is not what it should be: %s", form)
}

func write(w http.ResponseWriter, status int, value any) error {
	return writeAs(w, status, jsonType, value)
}

func writeAs(w http.ResponseWriter, status int, mediaType string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	body = append(body, '\n')
	setHeaders(w.Header(), mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
	return nil
}

func setHeaders(header http.Header, mediaType string) {
	header.Set("Content-Type", mediaType)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
}
