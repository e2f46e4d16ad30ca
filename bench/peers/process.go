package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const childEnv = "ONCELOG_PEERS_CHILD"

// process is a child, seen from the parent. It stands still unless it is asked something.
type process struct {
	kind kind
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	dir  string
}

// start starts a child for a peer in a directory of its own. enter, if not nil, is called with its pid before it opens.
func start(k kind, dir string, enter func(pid int) error) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{kind: k, cmd: cmd, in: in, out: bufio.NewReader(out), dir: dir}
	if enter != nil {
		if err := enter(cmd.Process.Pid); err != nil {
			return nil, errors.Join(err, p.kill())
		}
	}
	return p, nil
}

// ask has the child run until it has answered.
func (p *process) ask(req request) (rep reply, err error) {
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return rep, err
	}
	line, err := json.Marshal(req)
	if err != nil {
		return rep, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return rep, fmt.Errorf("%s: %w", p.kind.name, err)
	}
	line, err = p.out.ReadBytes('\n')
	if err != nil {
		return rep, fmt.Errorf("%s died: %w", p.kind.name, err)
	}
	if err := json.Unmarshal(line, &rep); err != nil {
		return rep, err
	}
	switch rep.Err {
	case "":
	case errAbsent.Error():
		return rep, errAbsent
	default:
		return rep, fmt.Errorf("%s: %s: %s", p.kind.name, req.Do, rep.Err)
	}
	return rep, p.cmd.Process.Signal(syscall.SIGSTOP)
}

func (p *process) open(m mode, keys uint64) (reply, error) {
	return p.ask(request{Do: "open", Peer: p.kind.name, Dir: p.dir, Mode: m, Keys: keys})
}

// close closes the peer and ends the process.
func (p *process) close() error {
	_, err := p.ask(request{Do: "close"})
	_ = p.in.Close()
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	return errors.Join(err, p.cmd.Wait())
}

func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // says that it was killed
	return err
}

// cpuSeconds is what this process has used so far.
func cpuSeconds() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
}
