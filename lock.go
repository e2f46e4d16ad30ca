package oncelog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const lockName = "LOCK"

// lockPoll is how often a caller with Options.LockWait looks whether the owner has left.
const lockPoll = 10 * time.Millisecond

// errBusy is what flockFile returns when another process has the lock.
var errBusy = errors.New("locked")

// dirLock is the ownership of a directory. The file is never removed: whoever removes a lock file may remove one
// that a third process has just locked, and then two own the directory. The process id in it is for people only.
type dirLock struct {
	file *os.File
	info os.FileInfo
}

// owned are the directories that this process has open. On some file systems a process's second lock on a file
// succeeds, and closing it gives up the first.
var owned struct {
	sync.Mutex
	locks []*dirLock
}

// lockDir takes ownership of dir, waiting at most wait for another owner to leave.
func lockDir(dir string, wait time.Duration) (*dirLock, error) {
	deadline := time.Now().Add(wait)
	for {
		l, err := tryLockDir(dir)
		if err == nil || !errors.Is(err, ErrLocked) || !time.Now().Before(deadline) {
			return l, err
		}
		time.Sleep(min(lockPoll, time.Until(deadline)))
	}
}

func tryLockDir(dir string) (*dirLock, error) {
	path := filepath.Join(dir, lockName)
	owned.Lock()
	defer owned.Unlock()
	if fi, err := os.Lstat(path); err == nil {
		// Asked before the file is opened, because merely closing it again could give up the first lock.
		for _, l := range owned.locks {
			if os.SameFile(l.info, fi) {
				return nil, fmt.Errorf("%w: this process has %s open already; share that store", ErrLocked, dir)
			}
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openNoFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("oncelog: %w", err)
	}
	if err := flockFile(f); err != nil {
		pid := make([]byte, 20)
		n, _ := f.ReadAt(pid, 0)
		_ = f.Close()
		if !errors.Is(err, errBusy) {
			return nil, fmt.Errorf("oncelog: lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%w: %s belongs to process %s; close it there, or set Options.LockWait",
			ErrLocked, dir, bytes.TrimSpace(pid[:n]))
	}
	l := &dirLock{file: f}
	if l.info, err = f.Stat(); err == nil {
		err = l.sign()
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("oncelog: lock %s: %w", path, err)
	}
	owned.locks = append(owned.locks, l)
	return l, nil
}

// sign writes who the owner is. A full disk must not keep a store shut, so that it cannot be written is no error.
func (l *dirLock) sign() error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, _ = l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return nil
}

// release gives the directory up.
func (l *dirLock) release() error {
	owned.Lock()
	defer owned.Unlock()
	for i, o := range owned.locks {
		if o == l {
			owned.locks = append(owned.locks[:i], owned.locks[i+1:]...)
			break
		}
	}
	// Closing alone would leave the lock with a child process that is being started at this moment and has a copy of
	// the descriptor until it runs its program.
	return errors.Join(unlockFile(l.file), l.file.Close())
}
