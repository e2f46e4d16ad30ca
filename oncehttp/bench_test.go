package oncehttp

import (
	"io"
	"net/http"
	"testing"
)

// discard is a ResponseWriter that costs nothing.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkDuplicate is a duplicate against the bare handler, over a store on disk: what the middleware costs whoever
// retries. The handler answers 256 bytes to 256.
func BenchmarkDuplicate(b *testing.B) {
	body := make([]byte, 256)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Location", "/payments/1")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	})
	wrapped := wrap(b, durable(b), Options{}, handler)
	run := func(h http.Handler) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			r := request(quoted, string(body))
			source := &rewound{b: body}
			r.Body = source
			for b.Loop() {
				source.at = 0
				h.ServeHTTP(&discard{make(http.Header, 4)}, r)
			}
		}
	}
	wrapped.ServeHTTP(&discard{make(http.Header)}, request(quoted, string(body)))
	b.Run("bare", run(handler))
	b.Run("guarded", run(wrapped))
}

// rewound is a body that can be read again.
type rewound struct {
	b  []byte
	at int
}

func (r *rewound) Read(p []byte) (int, error) {
	if r.at == len(r.b) {
		return 0, io.EOF
	}
	n := copy(p, r.b[r.at:])
	r.at += n
	return n, nil
}

func (r *rewound) Close() error { return nil }
