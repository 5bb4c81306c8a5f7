package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// manifestHead is the length of what stands before the changes of a manifest. Each is <length 4> <CRC32C 4> and a
// pb.ManifestChangeSet: the tables that one flush or one merge has made and deleted.
const manifestHead = 8

// mendManifest takes back changes that Badger has given up itself. When the sync of the manifest fails, the change stands
// in the file all the same, and Badger deletes the tables that it has just made. What those held is still in the log, or in
// the tables that were to be merged: if all of these are there, a manifest without the change is the right one. It holds
// no proof that nothing is missing; the notes of the commit groups do, since each table that a flush makes has some.
//
// It changes nothing unless that makes all tables of the manifest be there. The manifest has been set aside before.
func (g *gate) mendManifest() error {
	path := filepath.Join(g.badgerPath(), badger.ManifestFilename)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	there := func(id uint64) bool {
		_, err := os.Lstat(table.NewFilename(id, g.badgerPath()))
		return err == nil
	}
	mended, dropped := withoutGivenUp(raw, there)
	if dropped == 0 {
		return nil
	}
	g.log.Warn("changes of the manifest are taken back whose tables are not there, since a sync of it has failed", zap.Int("changes", dropped))
	if err := g.setAside(path, false); err != nil {
		return err
	}
	if err := replaceFile(path, mended); err != nil {
		return fmt.Errorf("mend manifest: %w", err)
	}
	return nil
}

// withoutGivenUp returns a manifest without the changes that made tables which are neither there nor were deleted later,
// and how many those are: 0 if the rest would not be whole either.
func withoutGivenUp(raw []byte, there func(id uint64) bool) (mended []byte, dropped int) {
	type change struct {
		raw []byte
		set pb.ManifestChangeSet
	}
	if len(raw) < manifestHead {
		return nil, 0
	}
	var changes []*change
	alive := make(map[uint64]bool)
	for rest := raw[manifestHead:]; len(rest) >= 8; {
		size := int64(binary.BigEndian.Uint32(rest))
		if size > int64(len(rest)-8) {
			break // it was cut there
		}
		c := &change{raw: rest[:8+size]}
		if crc32.Checksum(c.raw[8:], castagnoli()) != binary.BigEndian.Uint32(rest[4:]) || proto.Unmarshal(c.raw[8:], &c.set) != nil {
			return nil, 0
		}
		for _, one := range c.set.Changes {
			alive[one.Id] = one.Op == pb.ManifestChange_CREATE
		}
		changes, rest = append(changes, c), rest[8+size:]
	}
	kept := slices.DeleteFunc(slices.Clone(changes), func(c *change) bool {
		return slices.ContainsFunc(c.set.Changes, func(one *pb.ManifestChange) bool {
			return one.Op == pb.ManifestChange_CREATE && alive[one.Id] && !there(one.Id)
		})
	})
	if len(kept) == len(changes) {
		return nil, 0
	}
	clear(alive)
	mended = slices.Clone(raw[:manifestHead])
	for _, c := range kept {
		mended = append(mended, c.raw...)
		for _, one := range c.set.Changes {
			alive[one.Id] = one.Op == pb.ManifestChange_CREATE
		}
	}
	for id, listed := range alive {
		if listed && !there(id) {
			return nil, 0
		}
	}
	return mended, len(changes) - len(kept)
}
