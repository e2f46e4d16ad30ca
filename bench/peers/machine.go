package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// describeMachine says what the figures are from, a line each: "name: value".
func describeMachine(dir string) (lines []string) {
	add := func(name, format string, args ...any) {
		lines = append(lines, name+": "+fmt.Sprintf(format, args...))
	}
	add("date", "%s", time.Now().UTC().Format("2006-01-02"))
	add("goos", "%s", runtime.GOOS)
	add("goarch", "%s", runtime.GOARCH)
	add("cpu", "%s, %d cores", firstOf("/proc/cpuinfo", "model name"), runtime.NumCPU())
	add("memory", "%s", firstOf("/proc/meminfo", "MemTotal"))
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		add("kernel", "%s", strings.TrimSpace(string(b)))
	}
	add("filesystem", "%s", fileSystemOf(dir))
	add("go", "%s", runtime.Version())
	info, ok := debug.ReadBuildInfo()
	for _, k := range kinds {
		version := ""
		if ok {
			i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == k.module })
			if i >= 0 && k.module != core {
				version = info.Deps[i].Version
			}
		}
		if k.name == "redis" {
			version = redisVersion()
		}
		add("peer", "%s %s (%s)", k.name, version, k.setting)
	}
	return lines
}

func firstOf(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func redisVersion() string {
	b, err := exec.Command("redis-server", "--version").Output()
	if err != nil {
		return "not on this machine"
	}
	for _, field := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(field, "v="); ok {
			return v
		}
	}
	return "unknown"
}

func fileSystemOf(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	if name := map[int64]string{0xef53: "ext4", 0x58465342: "XFS", 0x9123683e: "btrfs", 0x01021994: "tmpfs, which is memory: durable means nothing here"}[int64(st.Type)]; name != "" {
		return name
	}
	return fmt.Sprintf("%#x", st.Type)
}

// blocksOf is what a file takes on disk, holes left out.
func blocksOf(path string) (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

// written is how many bytes were written to the device under dir since the machine started, by anybody. 0 = not known.
func written(dir string) int64 {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return 0
	}
	major, minor := st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&0xfff00
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", major, minor))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 7 {
		return 0
	}
	sectors, err := strconv.ParseInt(fields[6], 10, 64)
	if err != nil {
		return 0
	}
	return sectors * 512
}

// cgroup limits the memory of the processes in it, page cache included.
type cgroup struct{ path string }

func newCgroup(limit int64) (*cgroup, error) {
	for _, way := range []struct{ root, file string }{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		g := &cgroup{filepath.Join(way.root, fmt.Sprint("oncelog-peers-", os.Getpid()))}
		if _, err := os.Stat(way.root); err != nil {
			continue
		}
		if err := os.Mkdir(g.path, 0o755); err != nil {
			return nil, err
		}
		err := os.WriteFile(filepath.Join(g.path, way.file), []byte(strconv.FormatInt(limit, 10)), 0o644)
		if err == nil {
			return g, nil
		}
		g.remove()
	}
	return nil, errors.New("there is no memory cgroup")
}

func (g *cgroup) add(pid int) error {
	return os.WriteFile(filepath.Join(g.path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
}

// remove removes the group once the last of its processes is gone.
func (g *cgroup) remove() { _ = os.Remove(g.path) }
