package receiver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

type byValue struct{ f []int }

func (byValue) Claim(context.Context, Request) (Claim, error)                             { return Claim{}, nil }
func (byValue) Release(context.Context, []byte, uint64) error                             { return nil }
func (byValue) Inspect(context.Context, []byte) (c Claim, err error)                      { return }
func (b byValue) Forget(context.Context, []byte) error                                    { return fmt.Errorf("%v", b.f) }
func (byValue) Complete(context.Context, []byte, uint64, Result) (u time.Time, err error) { return }

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		store Store
		opts  *Options
		want  string
	}{
		{nil, nil, "without a store"},
		{byValue{}, nil, "make it a pointer"},
		{&nothing{}, &Options{InFlight: 7}, "InFlight is 7"},
	} {
		_, err := New(c.store, c.opts)
		require.ErrorContains(t, err, c.want)
	}
}

// Events name the scope, and never a key.
func TestEvents(t *testing.T) {
	var got []Event
	r, err := New(&nothing{}, &Options{Observe: func(e Event) { got = append(got, e) }})
	require.NoError(t, err)
	_, err = r.Scope("a").Scope("b").Do(t.Context(), "k", func(context.Context) ([]byte, error) { return nil, errors.New("no") })
	require.Error(t, err)
	require.Panics(t, func() {
		_, _ = r.Do(t.Context(), "k", func(context.Context) ([]byte, error) { panic("no") })
	})
	require.Len(t, got, 2)
	require.Equal(t, EventFailed, got[0].Kind)
	require.Equal(t, "a/b", got[0].Scope)
	require.NotZero(t, got[0].Run)
	require.Zero(t, got[0].Commit)
	require.Equal(t, EventFailed, got[1].Kind)
	require.Equal(t, "", got[1].Scope)
}

func TestLongFailuresAreCut(t *testing.T) {
	for _, s := range []string{"", "a", strings.Repeat("a", 100), strings.Repeat("ä", 100), "a" + strings.Repeat("€", 100), strings.Repeat("\x80", 100)} {
		for n := range 20 {
			c := cut(s, n)
			require.LessOrEqual(t, len(c), n)
			require.True(t, strings.HasPrefix(s, c))
			if utf8.ValidString(s) {
				require.True(t, utf8.ValidString(c))
				require.Greater(t, len(c), min(n, len(s))-utf8.UTFMax)
			}
		}
	}
	require.Len(t, failure(errors.New(strings.Repeat("m", 1<<20))).Message, maxMessage)
	require.NoError(t, Permanent(nil))
}

func TestStoredErrorsAreCompared(t *testing.T) {
	e := &StoredError{Code: "E1", Message: "no", Replayed: true}
	require.ErrorIs(t, fmt.Errorf("wrapped: %w", e), &StoredError{Code: "E1"})
	require.NotErrorIs(t, e, &StoredError{Code: "E2"})
	require.NotErrorIs(t, &StoredError{}, &StoredError{Message: "x"}, "no code is no code in common")
	require.Equal(t, "no (code E1)", e.Error())
	require.Equal(t, "no", (&StoredError{Message: "no"}).Error())
	require.Nil(t, errors.Unwrap(e))
}
