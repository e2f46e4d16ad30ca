package owners

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	ownerRounds = flag.Int("owners.rounds", 0, "how often the processes fight for the directory; default 20, 3 with -short")
	ownerSeed   = flag.Uint64("owners.seed", 0, "begin with this seed; what the scheduler does stays chance")
)

const (
	processes = 50
	waiting   = 5 // of them wait for a killed owner's place
)

func rounds() int {
	switch {
	case *ownerRounds > 0:
		return *ownerRounds
	case testing.Short():
		return 3
	}
	return 20
}

// fight is the parent's side.
type fight struct {
	t         *testing.T
	dir       string
	rnd       *rand.Rand
	in        *bufio.Reader // what all say
	pipe      *os.File      // the end that they write to
	all       []*process
	owner     int    // -1 = nobody
	dying     int    // it is being killed, and may say something yet as long as nobody else owns the directory
	durable   uint64 // this number was promised
	handOvers int
}

type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	errs bytes.Buffer
	end  chan error
}

func newFight(t *testing.T) *fight {
	seed := *ownerSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-owners.seed=%d", seed)
	out, pipe, err := os.Pipe()
	require.NoError(t, err)
	f := &fight{
		t: t, dir: filepath.Join(t.TempDir(), "store"), rnd: rand.New(rand.NewPCG(seed, 0)),
		in: bufio.NewReader(out), pipe: pipe, all: make([]*process, processes), owner: -1, dying: -1,
	}
	t.Cleanup(func() {
		for _, p := range f.all {
			if p != nil {
				_ = p.cmd.Process.Kill()
				<-p.end
			}
		}
		_, _ = out.Close(), pipe.Close()
	})
	for i := range f.all {
		f.start(i)
	}
	return f
}

func (f *fight) start(i int) {
	self, err := os.Executable()
	require.NoError(f.t, err)
	p := &process{cmd: exec.Command(self), end: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), childEnv+"="+strconv.Itoa(i), dirEnv+"="+f.dir, "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = f.pipe, &p.errs
	p.in, err = p.cmd.StdinPipe()
	require.NoError(f.t, err)
	require.NoError(f.t, p.cmd.Start())
	go func() { p.end <- p.cmd.Wait(); close(p.end) }()
	f.all[i] = p
}

func (f *fight) tell(i int, what string) {
	_, err := io.WriteString(f.all[i].in, what+"\n")
	require.NoError(f.t, err)
}

// hear reads the next line, and keeps account of who owns the directory and what was promised.
func (f *fight) hear() (i int, what, rest string) {
	line, err := f.in.ReadString('\n')
	require.NoError(f.t, err)
	number, line, _ := strings.Cut(strings.TrimSpace(line), " ")
	what, rest, _ = strings.Cut(line, " ")
	i, err = strconv.Atoi(number)
	require.NoError(f.t, err)
	n, _ := strconv.ParseUint(rest, 10, 64)
	switch what {
	case sayGot:
		require.Equal(f.t, -1, f.owner, "process %d got in while another owned the directory", i)
		f.owner, f.dying = i, -1
		f.handOvers++
		require.GreaterOrEqual(f.t, n, f.durable, "process %d does not find what was promised", i)
		require.LessOrEqual(f.t, n, f.durable+1, "process %d finds what nobody wrote", i)
		f.durable = n
	case sayPut:
		require.True(f.t, i == f.owner || i == f.dying, "process %d writes, and %d is the owner", i, f.owner)
		require.Equal(f.t, f.durable+1, n)
		f.durable = n
	case sayLeft:
		require.Equal(f.t, f.owner, i)
		f.owner = -1
	case remarkKill:
		require.Equal(f.t, f.owner, i)
		f.owner, f.dying = -1, i
	case sayFailed:
		require.Fail(f.t, "a process could not go on", "%d: %s", i, rest)
	}
	return i, what, rest
}

// race tells all that do not own the directory to open it, at once, and hears what comes of it: who got in, and the
// errors of those who did not.
func (f *fight) race(among []int) (got []int, refusals []string) {
	f.rnd.Shuffle(len(among), func(i, j int) { among[i], among[j] = among[j], among[i] })
	for _, i := range among {
		f.tell(i, tellOpen)
	}
	for range among {
		switch i, what, rest := f.hear(); what {
		case sayGot:
			got = append(got, i)
		case sayLocked:
			refusals = append(refusals, rest)
		default:
			require.Fail(f.t, "out of turn", "%d: %s", i, what)
		}
	}
	return got, refusals
}

// others are all but the owner.
func (f *fight) others() (numbers []int) {
	for i := range f.all {
		if i != f.owner {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// until hears until a process says this.
func (f *fight) until(want string) (i int) {
	for {
		if i, what, _ := f.hear(); what == want {
			return i
		}
	}
}

// kill kills the owner, and puts another process in its place.
func (f *fight) kill() {
	i := f.owner
	p := f.all[i]
	_, err := fmt.Fprintf(f.pipe, "%d %s \n", i, remarkKill)
	require.NoError(f.t, err)
	require.NoError(f.t, p.cmd.Process.Kill())
	<-p.end
	require.Empty(f.t, p.errs.String())
	f.start(i)
}

// fingerprint is all that can be seen of the directory.
func (f *fight) fingerprint() (all []string) {
	require.NoError(f.t, filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		one := fmt.Sprint(path, fi.Mode(), fi.Size(), fi.ModTime())
		if !e.IsDir() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			one += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		all = append(all, one)
		return nil
	}))
	return all
}

// One owner at any time, whoever comes when and however it goes: of those that come at once one gets in, who is refused
// leaves no trace, a killed owner's place is free, and one that leaves hands on all that it has promised.
func TestPromise5OneOwnerOfManyProcesses(t *testing.T) {
	f := newFight(t)
	for range rounds() {
		got, refusals := f.race(f.others())
		require.Len(t, got, 1)
		require.Len(t, refusals, processes-1)
		owner := got[0]

		before := f.fingerprint()
		got, refusals = f.race(f.others())
		require.Empty(t, got)
		require.Equal(t, before, f.fingerprint(), "who was refused has changed something")
		for _, err := range refusals {
			require.Contains(t, err, fmt.Sprintf("belongs to process %d", f.all[owner].cmd.Process.Pid))
		}

		waiters := f.others()
		f.rnd.Shuffle(len(waiters), func(i, j int) { waiters[i], waiters[j] = waiters[j], waiters[i] })
		for _, i := range waiters[:waiting] {
			f.tell(i, tellWait)
		}
		f.tell(owner, tellWrite)
		for range 1 + f.rnd.IntN(50) {
			f.until(sayPut)
		}
		f.kill()
		had := map[int]bool{}
		for range waiting { // each once: nobody comes back who had it
			next := f.until(sayGot)
			require.Contains(t, waiters[:waiting], next)
			require.False(t, had[next])
			had[next] = true
			f.tell(next, tellWrite)
			for range 1 + f.rnd.IntN(5) {
				f.until(sayPut)
			}
			f.tell(next, tellClose)
			f.until(sayLeft)
		}
		f.until(sayClosed) // of the last; the others' went by on the way
	}
	t.Logf("%d rounds, %d owners, %d numbers", rounds(), f.handOvers, f.durable)
	require.Equal(t, rounds()*(1+waiting), f.handOvers)
}
