package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var proxyKills = flag.Int("proxy.kills", 0, "kills of the proxy in each of its two tests; 0 = 40, or 10 with -short")

// A proxy that is killed 500 times, many of them while the service is at work. With a service that honours the key, and
// retry, each effect is there exactly once. With one that doesn't, and block, none is there twice, and what was caught
// in the middle is 409 and listed. (Exactly once without the service's help is not to be had: whether it had done its
// work when the proxy died, nobody but the service can say.)
func TestPromise14ProxyKilledRetry(t *testing.T) { killProxies(t, true) }

func TestPromise14ProxyKilledBlock(t *testing.T) { killProxies(t, false) }

// killedService counts effects by key, and can be made to wait inside the next.
type killedService struct {
	honours bool

	mu      sync.Mutex
	effects map[string]int
	hold    chan struct{} // not nil: the next effect says so on inside, and its answer waits for this
	inside  chan struct{}
}

func (s *killedService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	s.mu.Lock()
	fresh := !s.honours || s.effects[key] == 0
	if fresh {
		s.effects[key]++
	}
	hold := s.hold
	if s.hold = nil; hold != nil {
		close(s.inside)
	}
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	_, _ = io.WriteString(w, "done "+key)
}

// proxyAddress is where the proxy is, for clients that wait for the next one.
type proxyAddress struct {
	mu   sync.Mutex
	cond *sync.Cond
	url  string
	life int
}

func (a *proxyAddress) set(url string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.url = url
	a.life++
	a.cond.Broadcast()
}

// after returns the address of a life after this one.
func (a *proxyAddress) after(life int) (string, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.life <= life {
		a.cond.Wait()
	}
	return a.url, a.life
}

func killProxies(t *testing.T, honours bool) {
	kills := *proxyKills
	if kills == 0 {
		if kills = 40; testing.Short() {
			kills = 10
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := &killedService{honours: honours, effects: map[string]int{}}
	service := httptest.NewServer(s)
	defer service.Close()
	dir := filepath.Join(t.TempDir(), "store")
	onDoubt := "block"
	if honours {
		onDoubt = "retry"
	}
	addr := &proxyAddress{}
	addr.cond = sync.NewCond(&addr.mu)
	life := func() *exec.Cmd {
		cmd := process(t, "proxy", "--listen", "127.0.0.1:0", "--upstream", service.URL, "--dir", dir, "--on-doubt", onDoubt, "--wait", "1m", "--quiet")
		var complaint lockedBuffer
		cmd.Stderr = &complaint
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err, complaint.String())
		addr.set("http://" + strings.TrimSpace(strings.TrimPrefix(line, "listening on ")))
		return cmd
	}

	// Clients deliver each key until it is answered, and then once more.
	const clients = 8
	var mu sync.Mutex
	answers, caught := 0, map[string]bool{}
	progress := sync.NewCond(&mu)
	stop := make(chan struct{})
	errs := make(chan error, clients)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			err := func() error {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return nil
					default:
					}
					key := fmt.Sprintf("client-%d-%d", c, n)
					var first answered
					for delivery := range 2 {
						a, err := deliver(addr, key)
						if err != nil {
							return err
						}
						switch {
						case a.kind == "in-doubt" && !honours:
							mu.Lock()
							caught[key] = true
							mu.Unlock()
						case a.status != 200 || a.body != `done "`+key+`"`:
							return fmt.Errorf("%s: %+v", key, a)
						case delivery == 1 && !a.replayed:
							return fmt.Errorf("%s: the second delivery was not answered from the store", key)
						}
						if delivery == 0 {
							first = a
						} else if a.status != first.status {
							return fmt.Errorf("%s: first %+v, then %+v", key, first, a)
						}
					}
					mu.Lock()
					answers++
					progress.Broadcast()
					mu.Unlock()
				}
			}()
			if err != nil {
				errs <- err
				mu.Lock()
				answers += 1 << 30 // so that nobody waits for it
				progress.Broadcast()
				mu.Unlock()
			}
		})
	}
	waitFor := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		for was := answers; answers < was+n; {
			progress.Wait()
		}
	}

	cmd := life()
	insideKills := 0
	for range kills {
		if len(errs) > 0 {
			break
		}
		if rnd.IntN(4) > 0 {
			hold, inside := make(chan struct{}), make(chan struct{})
			s.mu.Lock()
			s.hold, s.inside = hold, inside
			s.mu.Unlock()
			select {
			case <-inside:
				insideKills++
			case err := <-errs:
				t.Fatal(err)
			}
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
			close(hold)
		} else {
			waitFor(rnd.IntN(2 * clients))
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
		}
		cmd = life()
	}
	close(stop)
	wg.Wait()
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}

	for key, n := range s.effects {
		require.Equal(t, 1, n, "effects of %s", key)
	}
	require.GreaterOrEqual(t, insideKills, kills/10)
	listed := map[string]bool{}
	for line := range strings.Lines(done(t, "", "doubts", dir, "--json")) {
		var d doubted
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		_, key, _ := strings.Cut(*d.Key, "/ ")
		listed[key] = true
	}
	require.Equal(t, caught, listed)
	if !honours {
		require.NotEmpty(t, caught, "no kill left anything in doubt")
	}
	t.Logf("%d kills, %d inside the service's work; %d keys with one effect each, %d in doubt", kills, insideKills, len(s.effects), len(caught))
}

// deliver sends until there is an answer that is none of "come again".
func deliver(addr *proxyAddress, key string) (answered, error) {
	url, life := addr.after(0)
	for {
		a, err := trySend(url+"/", key, "")
		switch {
		case err != nil: // it was killed
			url, life = addr.after(life)
			continue
		case a.status == 502, a.status == 503, a.status == 504, a.kind == "in-flight":
			continue
		}
		return a, nil
	}
}
