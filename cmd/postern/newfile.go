package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// newFile is a file that gets its name when it is whole. createNew makes one.
type newFile struct {
	file  *os.File
	name  string
	force bool // replace the file that has the name
	size  int64
}

func createNew(name string, force bool) (*newFile, error) {
	f := &newFile{name: name, force: force}
	if err := f.isFree(); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".part-") // mode 0600
	if cause, ok := errors.AsType[*fs.PathError](err); ok {
		err = cause.Err // without a name that nobody has chosen
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("make a file in the folder %q: %w", filepath.Dir(name), err)}
	}
	f.file = file
	return f, nil
}

// isFree returns an error if something has the name already that is not to be replaced.
func (f *newFile) isFree() error {
	info, err := os.Lstat(f.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && !f.force:
		err = errors.New("it is there already; choose another name, or --force")
	case err == nil && !info.Mode().IsRegular():
		err = errors.New("it is no file; choose another name")
	}
	if err != nil {
		return usageError{fmt.Errorf("write %q: %w", f.name, err)}
	}
	return nil
}

func (f *newFile) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	f.size += int64(n)
	return n, err
}

// finish has check, if it is not nil, read the file again, and gives it its name.
func (f *newFile) finish(check func(io.Reader) error) error {
	err := f.file.Sync()
	if err == nil && check != nil {
		if _, err = f.file.Seek(0, io.SeekStart); err == nil {
			err = check(f.file)
		}
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", f.name, err)
	}
	if err := f.isFree(); err != nil { // it may have taken an hour
		return err
	}
	if err := errors.Join(os.Rename(f.file.Name(), f.name), syncFolder(filepath.Dir(f.name))); err != nil {
		return fmt.Errorf("write %q: %w", f.name, err)
	}
	return nil
}

// discard closes the file, and deletes it if it has not got its name.
func (f *newFile) discard() error {
	err := os.Remove(f.file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, f.file.Close())
}

// syncFolder makes a new name in a folder last.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
