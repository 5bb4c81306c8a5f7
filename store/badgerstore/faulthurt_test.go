package badgerstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// hurt is one way to damage a file. do reports whether it has changed anything.
type hurt struct {
	name string
	do   func(t *testing.T, sp *specimen, path, file string) bool
	two  bool // it hurts another file as well
}

// hurts returns the ways to damage a file, each with other places and bytes than the last time.
func hurts(random *rand.Rand, file string) []hurt {
	at := random.Float64()
	nth := random.IntN(1000)
	all := []hurt{
		{name: "missing", do: func(t *testing.T, _ *specimen, _, file string) bool { mustDo(t, os.Remove(file)); return true }},
		{name: "cut to nothing", do: cut(func(int64) int64 { return 0 })},
		{name: "cut to some bytes", do: cut(func(int64) int64 { return int64(1 + nth%40) })},
		{name: fmt.Sprintf("cut at %.4f", at), do: cut(func(size int64) int64 { return int64(at * float64(size)) })},
		{name: "cut by a byte", do: cut(func(size int64) int64 { return size - 1 })},
		{name: "older", do: older},
		{name: fmt.Sprintf("exchanged with file %d", nth), do: exchanged(nth), two: true},
		{name: fmt.Sprintf("overwritten by file %d", nth), do: overwritten(nth)},
	}
	for _, n := range []int{1, 16, 512, 4096, 1 << 16} {
		at := random.Float64()
		all = append(all,
			hurt{name: fmt.Sprintf("%d bytes zeroed at %.4f", n, at), do: changed(at, n, func([]byte) []byte { return make([]byte, n) })},
			hurt{name: fmt.Sprintf("%d bytes of noise at %.4f", n, at), do: changed(at, n, func(b []byte) []byte {
				for i := range b {
					b[i] = byte(random.Uint32())
				}
				return b
			})})
	}
	for range 6 {
		at, bit := random.Float64(), random.IntN(8)
		all = append(all, hurt{name: fmt.Sprintf("bit %d flipped at %.6f", bit, at), do: changed(at, 1, func(b []byte) []byte {
			b[0] ^= 1 << bit
			return b
		})})
	}
	// The first and the last bytes say how to read the rest.
	for _, fromEnd := range []bool{false, true} {
		place, bit := random.Int64N(64), random.IntN(8)
		all = append(all, hurt{name: fmt.Sprintf("bit %d flipped at byte %d, from the end: %t", bit, place, fromEnd), do: changedAt(
			func(size int64) int64 {
				if fromEnd {
					return size - 1 - place
				}
				return place
			}, 1, func(b []byte) []byte {
				b[0] ^= 1 << bit
				return b
			})})
	}
	return all
}

func cut(to func(size int64) int64) func(*testing.T, *specimen, string, string) bool {
	return func(t *testing.T, _ *specimen, _, file string) bool {
		size := apart(t, file)
		if n := to(size); n >= 0 && n < size {
			mustDo(t, os.Truncate(file, n))
			return true
		}
		return false
	}
}

// changed changes n bytes of what a file really holds, which is less than its size if it has a hole at its end.
func changed(at float64, n int, change func([]byte) []byte) func(*testing.T, *specimen, string, string) bool {
	return func(t *testing.T, sp *specimen, path, file string) bool {
		t.Helper()
		info, err := os.Stat(file)
		mustDo(t, err)
		held := min(info.Size(), dataSize(info))
		return changedAt(func(int64) int64 { return int64(at * float64(held)) }, n, change)(t, sp, path, file)
	}
}

func changedAt(at func(size int64) int64, n int, change func([]byte) []byte) func(*testing.T, *specimen, string, string) bool {
	return func(t *testing.T, _ *specimen, _, file string) bool {
		size := apart(t, file)
		place := at(size)
		if place < 0 || place >= size {
			return false
		}
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		mustDo(t, err)
		defer f.Close()
		was := make([]byte, min(int64(n), size-place))
		_, err = f.ReadAt(was, place)
		mustDo(t, err)
		is := change(slices.Clone(was))[:len(was)]
		_, err = f.WriteAt(is, place)
		mustDo(t, err)
		return !slices.Equal(was, is)
	}
}

// older puts an earlier state of a file in its place.
func older(t *testing.T, sp *specimen, path, file string) bool {
	rel, err := filepath.Rel(path, file)
	mustDo(t, err)
	from := filepath.Join(sp.older, rel)
	if _, err := os.Stat(from); err != nil {
		return false // it is not that old
	}
	mustDo(t, os.Remove(file))
	mustDo(t, copySparse(from, file))
	return true
}

// other returns another file of the folder, of the same kind if there is one.
func other(t *testing.T, sp *specimen, path, file string, nth int) string {
	var same, all []string
	for _, rel := range sp.files(t) {
		name := filepath.Join(path, rel)
		if name == file {
			continue
		}
		all = append(all, name)
		if filepath.Ext(name) == filepath.Ext(file) && filepath.Ext(name) != "" {
			same = append(same, name)
		}
	}
	if len(same) > 0 && nth%4 > 0 {
		all = same
	}
	return all[nth%len(all)]
}

func exchanged(nth int) func(*testing.T, *specimen, string, string) bool {
	return func(t *testing.T, sp *specimen, path, file string) bool {
		with, between := other(t, sp, path, file, nth), filepath.Join(path, "between")
		mustDo(t, errors.Join(os.Rename(file, between), os.Rename(with, file), os.Rename(between, with)))
		return true
	}
}

func overwritten(nth int) func(*testing.T, *specimen, string, string) bool {
	return func(t *testing.T, sp *specimen, path, file string) bool {
		mustDo(t, os.Remove(file))
		mustDo(t, copySparse(other(t, sp, path, file, nth), file))
		return true
	}
}

// apart gives a file of its own to a name that is linked, and returns its size.
func apart(t *testing.T, file string) int64 {
	t.Helper()
	if filepath.Ext(file) == ".sst" {
		mustDo(t, os.Rename(file, file+".linked"))
		mustDo(t, errors.Join(copySparse(file+".linked", file), os.Remove(file+".linked")))
	}
	info, err := os.Stat(file)
	mustDo(t, err)
	return info.Size()
}
