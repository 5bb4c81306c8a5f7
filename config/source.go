package config

import (
	"strings"
)

// maxErrors bounds what a hostile file can make us print.
const maxErrors = 1000

// source remembers where the values of a Config came from. It holds no secret in the open.
type source struct {
	file       string
	names      []string            // of the destinations, in the order of the file
	isName     map[string]bool     // the same as a set
	places     map[string]place    // by path, of the keys that are in the file or in an override
	replaced   map[string]bool     // paths below destinations whose inherited value does not count
	referenced map[string]bool     // paths of texts with references; secrets are not among them
	shown      map[string]string   // by path, of texts with references: the text with *** in their places
	contents   map[string][]Secret // by path, of all texts with references: what they stand for
	faulty     map[string]bool     // paths with a fault
	above      map[string]bool     // paths with a fault further down
	files      map[string]bool     // read by references
	errs       ErrorList
	warnings   []*Error
}

// place is where a value stands: in the file, or in an environment variable, whose name is then file.
type place struct {
	file      string
	line, col int
}

func newSource(file string) source {
	return source{
		file: file, isName: map[string]bool{}, places: map[string]place{}, replaced: map[string]bool{}, shown: map[string]string{}, referenced: map[string]bool{},
		contents: map[string][]Secret{}, faulty: map[string]bool{}, above: map[string]bool{}, files: map[string]bool{},
	}
}

// report adds a fault that leaves the values of all keys as they are.
func (s *source) report(at place, path, msg string) {
	switch {
	case s.full():
		return
	case len(s.errs) == maxErrors:
		msg, path = "too many faults; correct these, then see the rest", ""
		at = place{file: s.file, line: 1, col: 1}
	}
	s.errs = append(s.errs, &Error{File: at.file, Line: at.line, Col: at.col, Path: path, Msg: msg})
}

// full reports whether further faults would not be kept anyway.
func (s *source) full() bool { return len(s.errs) > maxErrors }

// fail adds a fault of the value at path.
func (s *source) fail(at place, path, msg string) {
	s.report(at, path, msg)
	s.faulty[path] = true
	for up, ok := parent(path); ok; up, ok = parent(up) {
		s.above[up] = true
	}
}

// nearest returns the place of path or of the nearest key around it.
func (s *source) nearest(path string) place {
	for {
		if own, ok := s.origin(path); ok {
			return s.places[own]
		}
		up, ok := parent(path)
		if !ok {
			return place{file: s.file, line: 1, col: 1}
		}
		path = up
	}
}

// origin returns the path under which a value stands in the file: path itself, or the same key of the defaults if
// it is inherited.
func (s *source) origin(path string) (string, bool) {
	if _, ok := s.places[path]; ok {
		return path, true
	}
	if inherited, ok := s.inherited(path); ok {
		if _, ok := s.places[inherited]; ok {
			return inherited, true
		}
	}
	return "", false
}

// inherited returns the path in the defaults section that the key of a destination takes its value from when the
// destination does not set it.
func (s *source) inherited(path string) (string, bool) {
	below, ok := strings.CutPrefix(path, "destinations.")
	if !ok {
		return "", false
	}
	for up, ok := path, true; ok; up, ok = parent(up) {
		if s.replaced[up] {
			return "", false
		}
	}
	// A name may hold dots, so the longest one counts.
	for i := len(below) - 1; i > 0; i-- {
		if below[i] == '.' && s.isName[below[:i]] {
			return "defaults." + below[i+1:], true
		}
	}
	return "", false
}

func (s *source) isFaulty(path string) bool {
	if s.above[path] {
		return true
	}
	if inherited, ok := s.inherited(path); ok && s.above[inherited] {
		return true
	}
	for up, ok := path, true; ok; up, ok = parent(up) {
		if own, ok := s.origin(up); s.faulty[up] || ok && s.faulty[own] {
			return true
		}
	}
	return false
}

// placeOf returns the place of the key at path if it is known, else the other one.
func (s *source) placeOf(path string, other place) place {
	if p, ok := s.places[path]; ok {
		return p
	}
	return other
}
