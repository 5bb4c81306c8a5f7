package badgerstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"
)

// closeModes takes the rights of others off the files and folders within the store's folder, and warns of what it finds.
// The folder itself is only warned of: it may be open to a group on purpose, as Kubernetes makes it for a volume, and
// what is inside is closed anyway.
func (s *Store) closeModes() {
	if info, err := os.Stat(s.path); err == nil && info.Mode().Perm()&0o077 != 0 {
		s.log.Warn("store folder is open to other users", zap.String("path", s.path),
			zap.Stringer("mode", info.Mode().Perm()), zap.String("advice", "chmod 0700"))
	}
	closed, err := closeModes(s.path)
	if err != nil {
		s.log.Warn("files of the store may be open to other users", zap.String("path", s.path), zap.Error(err))
	}
	if closed > 0 {
		s.log.Warn("files of the store were open to other users and are closed now",
			zap.String("path", s.path), zap.Int("files", closed))
	}
}

// closeModes takes the rights of others off all that is in a folder, which may be a link to one, and returns of how much
// it had to. What cannot be closed does not keep it from the rest.
func closeModes(path string) (closed int, err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return 0, err
	}
	var errs []error
	_ = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			errs = append(errs, err)
			return nil
		case name == path || !entry.IsDir() && !entry.Type().IsRegular():
			return nil
		case entry.IsDir() && entry.Name() == "lost+found": // of a volume, and not ours
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			if err = os.Chmod(name, info.Mode().Perm()&0o700); err == nil {
				closed++
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
		return nil
	})
	return closed, errors.Join(errs...)
}
