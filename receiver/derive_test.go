package receiver

import (
	"context"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// nothing is a store whose every key is new.
type nothing struct{ Store }

func (*nothing) Claim(context.Context, Request) (Claim, error) {
	return Claim{State: StateClaimed, Token: 1}, nil
}
func (*nothing) Release(context.Context, []byte, uint64) error { return nil }

func inside(t *testing.T, key string, fn func(ctx context.Context), scopes ...string) {
	r, err := New(&nothing{}, nil)
	require.NoError(t, err)
	for _, s := range scopes {
		r = r.Scope(s)
	}
	_, err = r.Do(t.Context(), key, func(ctx context.Context) ([]byte, error) { fn(ctx); return nil, context.Canceled })
	require.Equal(t, context.Canceled, err)
}

// Derived keys are pinned for ever: another result would make every service downstream see new messages. If this test
// fails, the change is wrong, not the test. The values were computed by another program, in another language.
func TestDerivedKeysArePinned(t *testing.T) {
	for _, c := range []struct {
		scopes    []string
		key, step string
		want      string
	}{
		{nil, "order-4711", "charge", "0bd7c13d-a05e-850e-a45c-ef2a332a8b50"},
		{nil, "order-4711", "mail", "e52abe13-f612-88d4-8662-58c5626c3670"},
		{[]string{"tenant"}, "order-4711", "charge", "0d80b7f9-e821-8ad3-828f-d8402e1d9452"},
		{[]string{"a", "b"}, "k", "s", "aa09f1a1-e7a1-87eb-8d42-5090b3794670"},
		{[]string{"ab"}, "k", "s", "9c6a7e32-ab0c-86db-b556-5e22d1c62a26"},
		{[]string{""}, "k", "s", "9a36d517-d40c-8093-9ff0-9864116ce4b2"},
		{nil, "\x00\xff", "ä", "1ae776e2-5825-8578-9b59-30548d63a09a"},
	} {
		inside(t, c.key, func(ctx context.Context) {
			got := Derive(ctx, c.step)
			require.Equal(t, c.want, got, "%q %q %q", c.scopes, c.key, c.step)
		}, c.scopes...)
	}
	require.Equal(t, "b37eced8e690f81d4b195601f340e2c510b055811eb549a013a07309bb2a4504", KeyOf())
	require.Equal(t, "d872bc22428a5026cbfeb1ab9962d297fecb1946fb684325cdca8480fa2ccc9e", KeyOf([]byte("ab"), []byte("c")))
	require.Equal(t, "f97cb8c27d68038ef4cba00df31f36ab25103c886cc6013a29a813f0f49d3da9", KeyOf([]byte("a"), []byte("bc")))
	require.Equal(t, "1f8c41fe7f97be93829fc5253c37c8cba5da4cb28e20368404fba3059a056217", KeyOf(nil))
}

func TestDerivedKeysAreUUIDsOfVersion8(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for _, step := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		inside(t, "k", func(ctx context.Context) { require.Regexp(t, form, Derive(ctx, step)) })
	}
}

func TestDeriveTellsScopeKeyAndStepApart(t *testing.T) {
	seen := map[string]bool{}
	for _, scopes := range [][]string{nil, {""}, {"a"}, {"a", "b"}, {"ab"}, {"b", "a"}} {
		for _, key := range []string{"a", "ab", "b"} {
			inside(t, key, func(ctx context.Context) {
				for _, step := range []string{"a", "ab", "b"} {
					d := Derive(ctx, step)
					require.False(t, seen[d])
					seen[d] = true
					require.Equal(t, d, Derive(ctx, step))
				}
			}, scopes...)
		}
	}
}

func TestDeriveInTheWrongPlace(t *testing.T) {
	require.PanicsWithValue(t, "receiver: Derive outside fn: pass on the context that fn was given", func() {
		Derive(t.Context(), "step")
	})
	inside(t, "k", func(ctx context.Context) {
		require.Panics(t, func() { Derive(ctx, "") })
	})
	_, ok := KeyFrom(t.Context())
	require.False(t, ok)
}

// The innermost call is the one that counts.
func TestKeyFromOfNestedCalls(t *testing.T) {
	inside(t, "outer", func(ctx context.Context) {
		outer := Derive(ctx, "s")
		inside(t, "not this one", func(context.Context) {})
		r, err := New(&nothing{}, nil)
		require.NoError(t, err)
		_, _ = r.Do(ctx, "inner", func(ctx context.Context) ([]byte, error) {
			key, ok := KeyFrom(ctx)
			require.True(t, ok)
			require.Equal(t, "inner", key)
			require.NotEqual(t, outer, Derive(ctx, "s"))
			return nil, context.Canceled
		})
		key, _ := KeyFrom(ctx)
		require.Equal(t, "outer", key)
		require.Equal(t, outer, Derive(ctx, "s"))
	})
}

// The keys of messages, and those derived inside a sequence, are pinned as well, by values from another program.
func TestMessageKeysAndThoseOfSequencesArePinned(t *testing.T) {
	r, err := New(&nothing{}, nil)
	require.NoError(t, err)
	order := &call{Context: t.Context(), r: r, key: "order-4711"}
	require.Equal(t, "81ec4807-4761-8eb8-a98a-30047ee73087", messageKey(order, "mail", 1))
	order.r = r.Scope("tenant")
	require.Equal(t, "78eeec11-6d8c-8ff4-af81-daf27627db00", messageKey(order, "mail", 2))
	number := func(r *Receiver, epoch, seq uint64) *call {
		return &call{Context: t.Context(), r: r, seq: &number{source: "orders", seq: seq, mark: Mark{Epoch: epoch}}}
	}
	require.Equal(t, "4586e2ae-cd69-8a4b-aabe-c008b5fe729c", Derive(number(r.Scope("tenant"), 0, 7), "charge"))
	require.Equal(t, "d1778e50-8928-8f15-9e88-f0de7fb7addb", Derive(number(r, 3, 300), "charge"))
	require.Equal(t, "775e62f2-cfe0-8ac9-9fee-7d94e804874a", messageKey(number(r, 3, 300), "mail", 1))
}
