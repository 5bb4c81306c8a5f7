package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNameFS(t *testing.T) {
	for magic, want := range map[int64]fsKind{
		0xef53: localFS, 0x58465342: localFS, 0x9123683e: localFS, 0x6969: networkFS, 0xff534d42: networkFS, 0xfe534d42: networkFS,
		0x01021997: networkFS, 0x794c7630: layerFS, 0x01021994: memoryFS, 0x65735546: unknownFS, 0x1234: unknownFS,
	} {
		if kind, name := nameFS(magic); kind != want || name == "" {
			t.Errorf("%#x: got %d %q, want %d and a name", magic, kind, name, want)
		}
	}
	if kind, name, err := fileSystemOf("/proc"); err != nil || kind != unknownFS {
		t.Errorf("/proc: got %d %q %v, want an unknown one", kind, name, err)
	}
	if _, _, err := fileSystemOf("/no/such/folder"); err == nil {
		t.Error("a folder that is not there: got no error")
	}
}

func TestGroupMemory(t *testing.T) {
	for _, tc := range []struct {
		rule   string
		groups string
		files  map[string]string
		want   int64
		ok     bool
	}{
		{"version 2 has one group", "0::/pod/app\n", map[string]string{"pod/app/memory.max": "1048576\n"}, 1 << 20, true},
		{"the least limit above it counts", "0::/pod/app\n", map[string]string{"pod/app/memory.max": "2097152", "pod/memory.max": "1048576"}, 1 << 20, true},
		{"a container sees its own group at the root", "0::/\n", map[string]string{"memory.max": "1048576"}, 1 << 20, true},
		{"so it is if the path is that of the host", "0::/host/path\n", map[string]string{"memory.max": "1048576"}, 1 << 20, true},
		{"max is no limit", "0::/\n", map[string]string{"memory.max": "max\n"}, 0, false},
		{"version 1 has one for each controller", "5:cpu,cpuacct:/a\n4:memory:/b\n", map[string]string{"memory/b/memory.limit_in_bytes": "1048576"}, 1 << 20, true},
		{"its huge number is no limit", "4:memory:/\n", map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712"}, 0, false},
		{"a malformed line is passed over", "nonsense\n", map[string]string{"memory.max": "1"}, 0, false},
		{"a malformed number is no limit", "0::/\n", map[string]string{"memory.max": "-1"}, 0, false},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tc.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
					t.Fatal(err)
				}
				writeFile(t, filepath.Join(root, name), text)
			}
			if got, ok := groupMemory(root, tc.groups); got != tc.want || ok != tc.ok {
				t.Errorf("got %d %t, want %d %t", got, ok, tc.want, tc.ok)
			}
		})
	}
}
