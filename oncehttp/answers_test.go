package oncehttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

func TestADuplicateInFlightWaitsAsLongAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const work = time.Minute
		for _, c := range []struct {
			wait time.Duration
			want int
		}{{0, 409}, {time.Second, 409}, {2 * work, 200}} {
			runs := 0
			h := guarded(t, Options{Wait: c.wait}, func(w http.ResponseWriter, r *http.Request) {
				runs++
				time.Sleep(work)
				_, _ = io.WriteString(w, "done")
			})
			done := make(chan struct{})
			go func() { defer close(done); post(h, quoted, "") }()
			synctest.Wait()
			began := time.Now()
			w := post(h, quoted, "")
			if c.want == 409 {
				isProblem(t, w, 409, "in-flight")
				require.Equal(t, "1", w.Header().Get("Retry-After"))
				require.Equal(t, c.wait, time.Since(began))
			} else {
				isReplay(t, w)
				require.Equal(t, "done", w.Body.String())
				require.Equal(t, work, time.Since(began))
			}
			<-done
			require.Equal(t, 1, runs)
		}
	})
}

// A duplicate that waits leaves when its own client does, and one whose turn comes runs.
func TestADuplicateThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		h := guarded(t, Options{Wait: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
			runs++
			time.Sleep(time.Minute)
			if runs == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		codes := make(chan int)
		go func() { codes <- post(h, quoted, "").Code }()
		synctest.Wait()
		ctx, gone := context.WithCancel(t.Context())
		go func() { codes <- serve(h, request(quoted, "").WithContext(ctx)).Code }()
		synctest.Wait()
		go func() { codes <- post(h, quoted, "").Code }()
		synctest.Wait()
		gone()
		require.Equal(t, 409, <-codes)
		require.Equal(t, 503, <-codes)
		require.Equal(t, 200, <-codes)
		require.Equal(t, 2, runs)
	})
}

func TestInDoubt(t *testing.T) {
	end := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "done") }
	unsure := func(w http.ResponseWriter, r *http.Request) {
		InDoubt(r.Context(), nil)
		w.WriteHeader(http.StatusBadGateway)
	}
	panics := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	failed := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	for name, c := range map[string]struct {
		first  http.HandlerFunc
		intent bool
		policy receiver.DoubtPolicy
		want   int
	}{
		"unsure, block":         {unsure, false, receiver.Block, 409},
		"unsure, intent, block": {unsure, true, receiver.Block, 409},
		"unsure, retry":         {unsure, true, receiver.Retry, 200},
		"unsure, resolve":       {unsure, true, receiver.Resolve, 200},
		"panic, intent":         {panics, true, receiver.Block, 409},
		"panic":                 {panics, false, receiver.Block, 200},
		"not kept, intent":      {failed, true, receiver.Block, 200},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := receiver.New(oncetest.Store(t), &receiver.Options{
				Resolve: func(_ context.Context, d receiver.Doubt) (receiver.Resolution, error) {
					require.Equal(t, "POST /payments order-4711", d.Key)
					return receiver.HappenedNot(), nil
				},
			})
			require.NoError(t, err)
			handler := c.first
			h := wrap(t, r, Options{Intent: c.intent, OnDoubt: c.policy},
				func(w http.ResponseWriter, r *http.Request) { handler(w, r) })
			func() {
				defer func() { _ = recover() }()
				ctx, gone := context.WithCancel(t.Context())
				handler = func(w http.ResponseWriter, r *http.Request) { gone(); c.first(w, r) } // whoever asks is away
				w := serve(h, request(quoted, "").WithContext(ctx))
				if strings.HasPrefix(name, "unsure") {
					require.NotContains(t, isProblem(t, w, 409, "in-doubt"), "the handler")
				}
			}()
			handler = end
			w := post(h, quoted, "")
			require.Equal(t, c.want, w.Code)
			if c.want == 409 {
				isProblem(t, w, 409, "in-doubt")
				doubts := 0
				for d, err := range r.Doubts(t.Context()) {
					require.NoError(t, err)
					require.Equal(t, "POST /payments order-4711", d.Key)
					doubts++
				}
				require.Equal(t, 1, doubts)
				isProblem(t, post(h, quoted, "other"), 422, "key-reused")
			}
		})
	}
}

// What somebody finds out about a doubt is the answer from then on, though nobody knows the response.
func TestADoubtThatIsSettledByHand(t *testing.T) {
	broken := errors.New("refused by the bank")
	for name, c := range map[string]struct {
		res  receiver.Resolution
		kind string
	}{
		"happened": {receiver.Happened(nil), "result-gone"}, "failed": {receiver.Failed(broken), "failed"},
		"happened not": {receiver.HappenedNot(), ""},
		"damaged":      {receiver.Happened([]byte{1, 0xff}), "unreadable-response"},
		"newer":        {receiver.Happened([]byte{2, 0xff}), "unreadable-response"},
	} {
		t.Run(name, func(t *testing.T) {
			r := receiverOver(t, oncetest.Store(t))
			h := wrap(t, r, Options{}, func(w http.ResponseWriter, r *http.Request) { InDoubt(r.Context(), broken) })
			isProblem(t, post(h, quoted, ""), 409, "in-doubt")
			require.NoError(t, r.Scope("any").Settle(t.Context(), "POST /payments order-4711", c.res))
			h = wrap(t, r, Options{}, (&counted{}).ServeHTTP)
			w := post(h, quoted, "")
			switch c.kind {
			case "":
				require.Equal(t, 201, w.Code)
			case "unreadable-response":
				isProblem(t, w, 500, c.kind)
			default:
				require.NotContains(t, isProblem(t, w, 410, c.kind), "bank")
			}
		})
	}
}

func TestAQuotaThatIsUsedUp(t *testing.T) {
	st, err := oncelog.Open(t.TempDir(), nil)
	require.NoError(t, err)
	defer st.Close()
	r, err := st.Receiver(&receiver.Options{Quota: func(scope string) receiver.Quota {
		require.Equal(t, "any", scope)
		return receiver.Quota{Keys: 1}
	}})
	require.NoError(t, err)
	c := &counted{}
	h := wrap(t, r, Options{}, c.ServeHTTP)
	require.Equal(t, 201, post(h, quoted, "").Code)
	isProblem(t, post(h, `"second"`, ""), 429, "quota")
	isReplay(t, post(h, quoted, ""))
	require.Equal(t, 1, c.runs)
}

func TestAStoreThatTakesNoKeysRunsNothing(t *testing.T) {
	st, err := oncelog.Open(t.TempDir(), nil)
	require.NoError(t, err)
	r, err := st.Receiver(nil)
	require.NoError(t, err)
	c := &counted{}
	isProblem(t, post(wrap(t, r, Options{TTL: time.Second}, c.ServeHTTP), quoted, ""), 503, "refused") // below the retry window
	require.NoError(t, st.Close())
	w := post(wrap(t, r, Options{}, c.ServeHTTP), quoted, "")
	isProblem(t, w, 503, "refused")
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Zero(t, c.runs)
}

func TestWhenAReplayExpires(t *testing.T) {
	st, err := oncelog.Open(t.TempDir(), &oncelog.Options{TTL: oncelog.Forever})
	require.NoError(t, err)
	defer st.Close()
	r, err := st.Receiver(nil)
	require.NoError(t, err)
	for _, ttl := range []time.Duration{0, 100 * time.Hour} {
		h := wrap(t, r.Scope(ttl.String()), Options{TTL: ttl}, (&counted{}).ServeHTTP)
		post(h, quoted, "")
		w := post(h, quoted, "")
		require.Equal(t, "true", w.Header().Get("Idempotent-Replayed"))
		if ttl == 0 {
			require.Empty(t, w.Header().Values("Idempotency-Expires"))
			continue
		}
		expires, err := http.ParseTime(w.Header().Get("Idempotency-Expires"))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(ttl), expires, time.Hour)
	}
}

// Response and state are one commit.
func TestTx(t *testing.T) {
	state := func(r *receiver.Receiver) string {
		var v []byte
		_, err := r.DoTx(t.Context(), "read", func(_ context.Context, tx receiver.Tx) (_ []byte, err error) {
			v, _, err = tx.Get([]byte("balance"))
			require.NoError(t, err)
			return nil, errors.New("only read")
		})
		require.Error(t, err)
		return string(v)
	}
	set := func(then func(w http.ResponseWriter, r *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			tx, ok := receiver.TxFrom(r.Context())
			require.True(t, ok)
			v, _, err := tx.Get([]byte("balance"))
			require.NoError(t, err)
			require.NoError(t, tx.Set([]byte("balance"), append(v, 'x')))
			then(w, r)
		}
	}
	for name, c := range map[string]struct {
		then  http.HandlerFunc
		first int // 0 = a panic
		want  string
		again int
	}{
		"kept":     {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201) }, 201, "x", 201},
		"not kept": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, 503, "", 503},
		"kept all the same": {func(w http.ResponseWriter, r *http.Request) {
			Keep(r.Context())
			w.WriteHeader(503)
		}, 503, "x", 503},
		"flushed": {func(w http.ResponseWriter, r *http.Request) {
			require.NoError(t, http.NewResponseController(w).Flush())
			tx, _ := receiver.TxFrom(r.Context())
			require.ErrorIs(t, tx.Set([]byte("balance"), nil), receiver.ErrTxDone)
		}, 200, "x", 410},
		"in doubt": {func(w http.ResponseWriter, r *http.Request) { InDoubt(r.Context(), nil) }, 409, "", 409},
		"panic":    {func(w http.ResponseWriter, r *http.Request) { panic("boom") }, 0, "", 0},
		"panic, kept": {func(w http.ResponseWriter, r *http.Request) {
			Keep(r.Context())
			panic("boom")
		}, 0, "", 0},
		"can't be committed": {func(w http.ResponseWriter, r *http.Request) {
			tx, _ := receiver.TxFrom(r.Context())
			_ = tx.Set([]byte("large"), make([]byte, 17<<20))
			for i := 0; tx.Set([]byte{byte(i)}, make([]byte, 1<<20)) == nil; i++ {
			}
		}, 503, "", 503},
		"can't be committed when flushed": {func(w http.ResponseWriter, r *http.Request) {
			tx, _ := receiver.TxFrom(r.Context())
			for i := 0; tx.Set([]byte{byte(i)}, make([]byte, 1<<20)) == nil; i++ {
			}
			require.Error(t, http.NewResponseController(w).Flush())
		}, 503, "", 503},
	} {
		t.Run(name, func(t *testing.T) {
			r := durable(t)
			h := wrap(t, r, Options{Tx: true}, set(c.then))
			try := func() (w *httptest.ResponseRecorder) {
				defer func() { require.Equal(t, c.first == 0, recover() != nil) }()
				return post(h, quoted, "")
			}
			w := try()
			if c.first > 0 {
				require.Equal(t, c.first, w.Code, w.Body)
			}
			require.Equal(t, c.want, state(r))
			if w = try(); c.again > 0 {
				require.Equal(t, c.again, w.Code, w.Body)
			}
			require.Equal(t, c.want, state(r))
			if strings.HasPrefix(name, "can't") {
				isProblem(t, w, 503, "undone")
			}
		})
	}
	isProblem(t, post(wrap(t, receiverOver(t, &recording{Store: oncetest.Store(t)}), Options{Tx: true}, (&counted{}).ServeHTTP), quoted, ""), 503, "refused")
}

// A handler that says that it does not know, and then panics, as a reverse proxy does when it is cut, still doesn't know.
func TestAPanicAfterInDoubtLeavesTheDoubt(t *testing.T) {
	broken := errors.New("sent, and no answer")
	for _, opts := range []Options{{}, {Intent: true}, {Tx: true}} {
		r := receiverOver(t, oncetest.Store(t))
		if opts.Tx {
			r = durable(t)
		}
		runs := 0
		h := wrap(t, r, opts, func(w http.ResponseWriter, r *http.Request) {
			runs++
			InDoubt(r.Context(), broken)
			panic(http.ErrAbortHandler)
		})
		w := httptest.NewRecorder()
		require.PanicsWithValue(t, http.ErrAbortHandler, func() { h.ServeHTTP(w, request(quoted, "")) })
		require.Empty(t, w.Body.String())
		isProblem(t, post(h, quoted, ""), 409, "in-doubt")
		require.Equal(t, 1, runs)
	}
}

// Somebody has to find out, and begins with why.
func TestWhyAKeyIsInDoubtIsLogged(t *testing.T) {
	var out bytes.Buffer
	h := guarded(t, Options{Logger: slog.New(slog.NewTextHandler(&out, nil))}, func(w http.ResponseWriter, r *http.Request) {
		InDoubt(r.Context(), errors.New("sent, and no answer"))
	})
	require.NotContains(t, isProblem(t, post(h, quoted, ""), 409, "in-doubt"), "no answer")
	require.Contains(t, out.String(), "sent, and no answer")
	out.Reset()
	isProblem(t, post(h, quoted, ""), 409, "in-doubt")
	require.Empty(t, out.String(), "a duplicate has nothing to tell")
}
