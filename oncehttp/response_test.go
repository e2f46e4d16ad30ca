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
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

// Every status: kept or not, and with Keep.
func TestWhichStatusesAreKept(t *testing.T) {
	not := map[int]bool{401: true, 403: true, 408: true, 425: true, 429: true}
	for status := 200; status <= 599; status++ {
		kept := status < 500 && !not[status]
		for _, keep := range []string{"", "handler", "option"} {
			c := &counted{status: status}
			h := guarded(t, Options{Keep: func(s int, h http.Header) bool {
				require.Equal(t, status, s)
				require.Equal(t, "/payments/1", h.Get("Location"))
				return keep == "option"
			}}, func(w http.ResponseWriter, r *http.Request) {
				if keep == "handler" {
					Keep(r.Context())
				}
				c.ServeHTTP(w, r)
			})
			first, again := post(h, quoted, ""), post(h, quoted, "")
			require.Equal(t, status, first.Code)
			require.Equal(t, status, again.Code)
			require.Equal(t, "/payments/1", first.Header().Get("Location"))
			if kept || keep != "" {
				require.Equal(t, 1, c.runs, status)
				isReplay(t, again)
			} else {
				require.Equal(t, 2, c.runs, status)
				require.Empty(t, again.Header().Get("Idempotent-Replayed"))
			}
		}
	}
	Keep(t.Context()) // outside
	InDoubt(t.Context(), nil)
}

func TestRecordedAreTheHeadersThatTheHandlerAddedOrChanged(t *testing.T) {
	inner := guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		require.Equal(t, "outer", h.Get("Unchanged"))
		h.Set("Changed", "inner")
		h.Add("Longer", "inner")
		h.Del("Removed")
		h.Set("Added", "inner")
		h["lower-case"] = []string{"inner", "twice"}
		h["Content-Type"] = nil // says: do not guess
		for _, name := range []string{
			"Set-Cookie", "WWW-Authenticate", "Authentication-Info", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate",
			"TE", "Transfer-Encoding", "Upgrade", "Date", "Named-By-Connection", "Idempotent-Replayed",
		} {
			h.Set(name, "inner")
		}
		h["set-cookie"] = []string{"inner"}
		h.Set("Connection", "close, named-by-connection")
		h.Set("Content-Length", "4")
		w.WriteHeader(http.StatusOK)
		h.Set("Too-Late", "inner")
		_, _ = io.WriteString(w, "body")
	})
	n := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		for _, name := range []string{"Unchanged", "Changed", "Longer", "Removed"} {
			w.Header().Set(name, "outer")
		}
		w.Header().Set("Request-Id", strings.Repeat("i", n))
		inner.ServeHTTP(w, r)
	})
	first, again := post(h, quoted, "").Header(), post(h, quoted, "").Header()
	require.Equal(t, "inner", first.Get("Set-Cookie"))
	require.Equal(t, "4", first.Get("Content-Length"))
	require.Empty(t, first.Get("Too-Late"))
	require.Equal(t, "i", first.Get("Request-Id"))
	again.Del("Idempotency-Expires")
	require.Equal(t, http.Header{
		"Unchanged": {"outer"}, "Changed": {"inner"}, "Longer": {"outer", "inner"}, "Removed": nil, "Added": {"inner"},
		"lower-case": {"inner", "twice"}, "Content-Type": nil, "Request-Id": {"ii"}, "Idempotent-Replayed": {"true"},
	}, again)
}

// watched is a ResponseWriter that says what leaves, and a store that says when a frame is durable.
type watched struct {
	*httptest.ResponseRecorder
	log *[]string
}

func (w watched) WriteHeader(status int) {
	*w.log = append(*w.log, http.StatusText(status))
	w.ResponseRecorder.WriteHeader(status)
}

func (w watched) Write(b []byte) (int, error) {
	*w.log = append(*w.log, "bytes")
	return w.ResponseRecorder.Write(b)
}

func (w watched) Flush() {
	*w.log = append(*w.log, "flush")
	w.ResponseRecorder.Flush()
}

type recording struct {
	receiver.Store
	log  *[]string
	fail error
	held func() error // gives up the claim that could not be completed
}

func (s *recording) Complete(ctx context.Context, key []byte, token uint64, res receiver.Result) (time.Time, error) {
	if s.fail != nil {
		key = bytes.Clone(key)
		s.held = func() error { return s.Release(ctx, key, token) }
		return time.Time{}, s.fail
	}
	until, err := s.Store.Complete(ctx, key, token, res)
	*s.log = append(*s.log, map[receiver.Kind]string{receiver.KindValue: "value", receiver.KindGone: "gone", receiver.KindDoubt: "doubt"}[res.Kind])
	return until, err
}

func TestBytesLeaveOnlyAfterADurableFrame(t *testing.T) {
	const most = 10
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    []string
		code    int // of the duplicate
	}{
		"held": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "12345")
			_, _ = io.WriteString(w, "67890")
		}, []string{"value", "OK", "bytes"}, 200},
		"nothing written": {func(w http.ResponseWriter, r *http.Request) {}, []string{"value", "OK"}, 200},
		"too large": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "12345")
			_, _ = io.WriteString(w, "678901")
			_, _ = io.WriteString(w, "2")
		}, []string{"gone", "OK", "bytes", "bytes", "bytes"}, 410},
		"flushed": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "12345")
			w.(http.Flusher).Flush()
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "6")
		}, []string{"gone", "Created", "bytes", "flush", "flush", "bytes"}, 410},
		"flushed before anything": {func(w http.ResponseWriter, r *http.Request) {
			require.NoError(t, http.NewResponseController(w).Flush())
		}, []string{"gone", "OK", "flush"}, 410},
		"flushed, then a panic": {func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, []string{"gone", "OK", "flush"}, 410},
		"shorter than declared": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "6")
			_, _ = io.WriteString(w, "12345")
		}, []string{"gone", "OK", "bytes"}, 410},
		"trailers": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "12345")
			w.Header().Set(http.TrailerPrefix+"Sum", "5")
		}, []string{"gone", "OK", "bytes"}, 410},
		"trailers that were announced": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "Sum")
			_, _ = io.WriteString(w, "12345")
			w.Header().Set("Sum", "5")
		}, []string{"gone", "OK", "bytes"}, 410},
		"not kept": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "12345")
		}, []string{"Internal Server Error", "bytes"}, 500},
		"not kept, flushed": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "12345")
		}, []string{"Internal Server Error", "flush", "bytes"}, 500},
		"not kept, too large": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "12345678901")
		}, []string{"Internal Server Error", "bytes"}, 500},
		"Keep too late": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			w.(http.Flusher).Flush()
			Keep(r.Context())
		}, []string{"Internal Server Error", "flush", "gone"}, 410},
		"Keep, then a panic": {func(w http.ResponseWriter, r *http.Request) {
			Keep(r.Context())
			panic(http.ErrAbortHandler)
		}, []string{"gone"}, 410},
		"1xx": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.WriteHeader(http.StatusNoContent)
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
		}, []string{"Early Hints", "value", "No Content"}, 204},
		"in doubt": {func(w http.ResponseWriter, r *http.Request) {
			InDoubt(r.Context(), errors.New("cut"))
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "12345678901")
			require.NoError(t, http.NewResponseController(w).Flush())
		}, []string{"doubt", "Conflict", "bytes"}, 409},
		"in doubt after it was recorded": {func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			InDoubt(r.Context(), errors.New("cut"))
		}, []string{"gone", "OK", "flush"}, 410},
		"in doubt after it has begun to leave": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			w.(http.Flusher).Flush()
			InDoubt(r.Context(), errors.New("cut"))
		}, []string{"Bad Gateway", "flush", "doubt"}, 409},
	} {
		t.Run(name, func(t *testing.T) {
			var log []string
			store := &recording{oncetest.Store(t), &log, nil, nil}
			h := wrap(t, receiverOver(t, store), Options{MaxResponse: most}, c.handler)
			w := watched{httptest.NewRecorder(), &log}
			func() {
				defer func() {
					p := recover()
					require.True(t, p == nil || p == http.ErrAbortHandler, p)
					require.Equal(t, strings.Contains(name, "panic") || strings.Contains(name, "begun"), p != nil)
				}()
				h.ServeHTTP(w, request(quoted, ""))
			}()
			require.Equal(t, c.want, log)
			again := post(h, quoted, "")
			require.Equal(t, c.code, again.Code)
			switch c.code {
			case 410:
				isProblem(t, again, 410, "result-gone")
			case 409:
				isProblem(t, again, 409, "in-doubt")
			case 200, 204:
				isReplay(t, again)
				require.Equal(t, w.Body.String(), again.Body.String())
			}
		})
	}
}

// What can't be recorded is not sent, whenever that is found out, and what is sent says so.
func TestWhatCanNotBeRecordedIsNotSent(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"held": func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "secret") },
		"flushed": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "secret")
			require.ErrorIs(t, http.NewResponseController(w).Flush(), receiver.ErrUnrecorded)
			_, err := io.WriteString(w, "secret")
			require.ErrorIs(t, err, receiver.ErrUnrecorded)
		},
		"flushed, then a panic": func(w http.ResponseWriter, r *http.Request) {
			require.ErrorIs(t, http.NewResponseController(w).Flush(), receiver.ErrUnrecorded)
			panic("boom")
		},
		"too large": func(w http.ResponseWriter, r *http.Request) {
			_, err := io.WriteString(w, strings.Repeat("secret", 100))
			require.ErrorIs(t, err, receiver.ErrUnrecorded)
		},
		"in doubt": func(w http.ResponseWriter, r *http.Request) { InDoubt(r.Context(), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var log []string
			var out bytes.Buffer
			store := &recording{oncetest.Store(t), &log, errors.New("the disk has a name"), nil}
			h := wrap(t, receiverOver(t, store), Options{MaxResponse: 100, Logger: slog.New(slog.NewTextHandler(&out, nil))}, handler)
			if strings.HasSuffix(name, "panic") {
				require.Panics(t, func() { post(h, quoted, "secret") })
			} else {
				w := post(h, quoted, "secret")
				isProblem(t, w, http.StatusInternalServerError, "unrecorded")
				require.NotContains(t, w.Body.String(), "secret")
				require.NotContains(t, w.Body.String(), "disk")
				require.Contains(t, out.String(), "the disk has a name")
				require.NotContains(t, out.String(), "secret")
				require.NotContains(t, out.String(), "4711")
			}
			isProblem(t, post(h, quoted, "secret"), http.StatusConflict, "in-flight")
			require.NoError(t, store.held())
		})
	}
}

func TestTheWriterOfAHandler(t *testing.T) {
	var kept http.ResponseWriter
	h := guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		kept = w
		_, ok := w.(http.Hijacker)
		require.False(t, ok)
		_, ok = w.(interface{ Unwrap() http.ResponseWriter })
		require.False(t, ok)
		c := http.NewResponseController(w)
		_, _, err := c.Hijack()
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorIs(t, c.EnableFullDuplex(), errors.ErrUnsupported)
		require.Panics(t, func() { w.WriteHeader(0) })
		w.WriteHeader(http.StatusNoContent)
		_, err = io.WriteString(w, "body")
		require.ErrorIs(t, err, http.ErrBodyNotAllowed)
		n, err := w.Write(nil)
		require.Zero(t, n)
		require.NoError(t, err)
	})
	require.Equal(t, http.StatusNoContent, post(h, quoted, "").Code)
	_, err := io.WriteString(kept, "late")
	require.Error(t, err)
	require.Error(t, http.NewResponseController(kept).Flush())
	kept.WriteHeader(500)

	h = guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		kept = w
		w.Header().Set("Content-Length", "3")
		_, err := io.WriteString(w, "body")
		require.ErrorIs(t, err, http.ErrContentLength)
		_, err = io.WriteString(w, "bo")
		require.NoError(t, err)
	})
	require.Equal(t, "bo", post(h, quoted, "").Body.String())
	_, err = io.WriteString(kept, "d")
	require.ErrorIs(t, err, errOver)
	isProblem(t, post(h, quoted, ""), 410, "result-gone")

	h = guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "3")
		_, err := io.WriteString(w, "bod")
		require.NoError(t, err)
	})
	require.Equal(t, "bod", post(h, quoted, "").Body.String())
	require.Equal(t, "bod", post(h, quoted, "").Body.String())

	for _, length := range []string{"-1", "many"} {
		h = guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", length) // net/http drops it too
			_, err := io.WriteString(w, "bod")
			require.NoError(t, err)
		})
		w := post(h, quoted, "")
		require.Empty(t, w.Header().Values("Content-Length"))
		isReplay(t, post(h, quoted, ""))
	}

	h = guarded(t, Options{Methods: []string{"HEAD"}}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "3")
	})
	head := func(r *http.Request) { r.Method = "HEAD" }
	require.Equal(t, "3", post(h, quoted, "", head).Header().Get("Content-Length"))
	isReplay(t, post(h, quoted, "", head))
}

// What a 1xx has told is not part of an answer that is not the handler's.
func TestTheHeaderOfA1xxIsTheHandlersAlone(t *testing.T) {
	h := guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Early", "hint")
		w.WriteHeader(http.StatusEarlyHints)
		InDoubt(r.Context(), nil)
	})
	w := post(h, quoted, "")
	require.Empty(t, w.Header().Get("Early"))
}

func TestTheHandlerFindsTheRequestComplete(t *testing.T) {
	for _, body := range []string{"", "body", strings.Repeat("long", 50_000)} {
		h := guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			require.EqualValues(t, len(body), r.ContentLength)
			require.Empty(t, r.TransferEncoding)
			b, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, body, string(b))
			key, ok := receiver.KeyFrom(r.Context())
			require.True(t, ok)
			require.Equal(t, "POST /payments order-4711", key)
			require.Equal(t, quoted, r.Header.Get("Idempotency-Key"))
		})
		require.Equal(t, 200, post(h, quoted, body, func(r *http.Request) {
			r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
		}).Code)
	}
}

func TestTheHandlersContextOutlivesItsClient(t *testing.T) {
	type name struct{}
	for _, tx := range []bool{false, true} {
		ctx, gone := context.WithTimeout(context.WithValue(t.Context(), name{}, "value"), time.Hour)
		h := guarded(t, Options{Tx: tx}, func(w http.ResponseWriter, r *http.Request) {
			gone()
			require.NoError(t, r.Context().Err())
			_, limited := r.Context().Deadline()
			require.False(t, limited)
			require.Equal(t, "value", r.Context().Value(name{}))
			_, has := receiver.TxFrom(r.Context())
			require.Equal(t, tx, has)
			_, _ = io.WriteString(w, "done")
		})
		serve(h, request(quoted, "").WithContext(ctx))
		w := post(h, quoted, "")
		isReplay(t, w)
		require.Equal(t, "done", w.Body.String())
	}
}

func TestAPanicFreesTheKeyAndGoesOnUp(t *testing.T) {
	n := 0
	h := guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Half", "done")
		_, _ = io.WriteString(w, "half")
		if n++; n == 1 {
			panic("boom")
		}
	})
	w := httptest.NewRecorder()
	require.PanicsWithValue(t, "boom", func() { h.ServeHTTP(w, request(quoted, "")) })
	require.Empty(t, w.Body.String())
	require.Empty(t, w.Header(), "what is around may answer")
	require.Equal(t, "half", post(h, quoted, "").Body.String())
	require.Equal(t, 2, n)
}

// A refusal that says when to ask again says that it will be another one then: kept, it would be the only answer ever. A
// service behind the handler that has its own guard, and is still at work, answers so.
func TestARefusalForAWhileIsNotKept(t *testing.T) {
	for _, c := range []struct {
		status int
		name   string
		kept   bool
	}{{409, "Retry-After", false}, {423, "Retry-After", false}, {409, "X", true}, {303, "Retry-After", true}, {201, "Retry-After", true}} {
		runs := 0
		h := guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			runs++
			w.Header().Set(c.name, "1")
			w.WriteHeader(c.status)
		})
		post(h, quoted, "")
		require.Equal(t, c.kept, post(h, quoted, "").Header().Get("Idempotent-Replayed") == "true", c)
	}
}
