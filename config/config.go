// Package config reads the config file, postern.yaml: its types, strict loading, places of faults, secrets and the
// JSON Schema.
//
// Loading walks the nodes of the YAML document along the Go types in this package and reports every fault of the
// file in one run, each with line, column, path of the key and what to write instead. What a key means is not known
// here: rules that need an engine (the URL rule, patterns, the formats of secrets) live with the engine, and
// [Config.Errorf] turns a path into a place, so that the caller can go on reporting where this package stopped.
//
// Values come from four places, the later ones first: POSTERN_ variables, the destination's own keys, the defaults
// section, and what Postern takes for a key that nobody set. ${env:NAME} and ${file:/path} stand for the value of
// an environment variable and the content of a file (its last line break excepted) in any text of the file, in
// whole or in part; $${ is a literal ${. Relative paths in them count from the folder of the config file.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
)

// DefaultAdmin is listen.admin of a config that does not set it.
const DefaultAdmin = "127.0.0.1:8026"

// maxFile is the size of the largest config file, in bytes.
const maxFile = 1 << 20

// Load reads and checks the config file at path, a regular file of at most 1 MiB. environ is the environment as
// os.Environ gives it; the last of several equal names counts.
//
// Faults of the file come back as an ErrorList, together with a Config that holds what could be decoded. Any other
// error means that the file could not be read, and comes without a Config.
func Load(path string, environ []string) (*Config, error) {
	data, err := readRegular(path, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read config %q: %w; write one with a destination in it, or name another with --config", path, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("read config %q: %w", path, err)
	}
	return Parse(path, data, environ)
}

// Parse is Load for a file whose content is at hand. name stands in errors, and its folder is what relative paths
// count from. data is not kept.
func Parse(name string, data []byte, environ []string) (*Config, error) {
	cfg := &Config{src: newSource(name)}
	setDefaults(reflect.ValueOf(cfg).Elem())
	d := newDecoder(cfg, filepath.Dir(name), environ)
	if len(data) > maxFile {
		d.src.report(place{file: name, line: 1, col: 1}, "", fmt.Sprintf("the file is larger than %s", Size(maxFile)))
	} else {
		d.document(data)
	}
	return cfg, cfg.src.errs.Err()
}

// Names returns the names of the destinations in the order of the file.
func (c *Config) Names() []string { return slices.Clone(c.src.names) }

// Files returns the files that ${file:…} references were read from, sorted.
func (c *Config) Files() []string { return slices.Sorted(maps.Keys(c.src.files)) }

// Warnings returns what is allowed and yet worth a look: files with secrets that every user of the machine may
// read, and an admin listener that other hosts reach. They are sorted by place.
func (c *Config) Warnings() []*Error {
	warnings := slices.Clone(c.src.warnings)
	slices.SortStableFunc(warnings, compareErrors)
	return warnings
}

// Errorf makes an Error at the place of the key at path, such as destinations.alerts.sign[0].standard.secrets[1].
// An inherited key has its place in the defaults section; a key that is not in the file has the place of the
// nearest key around it. The text must not hold a secret.
func (c *Config) Errorf(path, format string, args ...any) *Error {
	p := c.src.nearest(path)
	return &Error{File: p.file, Line: p.line, Col: p.col, Path: path, Msg: fmt.Sprintf(format, args...)}
}

// Faulty reports whether the key at path, a key within it, or the defaults key that it is inherited from has a
// fault already, so that its value must not be relied on.
func (c *Config) Faulty(path string) bool { return c.src.isFaulty(path) }

// Referenced reports whether a text at path or within it holds a ${} reference, so that an error must not repeat it:
// it may be a secret in the wrong place. A Secret does not count, since no error repeats one.
func (c *Config) Referenced(path string) bool {
	own, ok := c.src.origin(path)
	if !ok {
		return false
	}
	for at := range c.src.referenced {
		if at == own || strings.HasPrefix(at, own+".") || strings.HasPrefix(at, own+"[") {
			return true
		}
	}
	return false
}

// Contents returns what the references in the texts at path and within it stand for, in the order of their paths, so that
// they can be kept out of what is recorded.
func (c *Config) Contents(path string) []Secret {
	own, ok := c.src.origin(path)
	if !ok {
		return nil
	}
	var all []Secret
	for _, at := range slices.Sorted(maps.Keys(c.src.contents)) {
		if at == own || strings.HasPrefix(at, own+".") || strings.HasPrefix(at, own+"[") {
			all = append(all, c.src.contents[at]...)
		}
	}
	return all
}

// readRegular reads a regular file of at most limit bytes. It does not wait for the writer of a named pipe.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, limit)
}

func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		_ = f.Close()
		return nil, cause(err)
	}
	return f, nil
}

func readBounded(f *os.File, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, cause(err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("larger than %s", Size(limit))
	}
	return data, nil
}

// cause strips operation and path, which the caller names.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// join appends a key to a path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// parent returns the path without its last key or index, and false at the top.
func parent(path string) (string, bool) {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return "", false
	}
	return path[:i], true
}
