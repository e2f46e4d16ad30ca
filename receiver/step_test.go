package receiver

import (
	"context"
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStepsNest(t *testing.T) {
	_, ok := StepFrom(Step(t.Context(), "outside"))
	require.False(t, ok)
	inside(t, "k", func(ctx context.Context) {
		name := func(ctx context.Context) string {
			name, ok := StepFrom(ctx)
			require.Equal(t, name != "", ok)
			return name
		}
		require.Empty(t, name(ctx))
		require.Equal(t, "pay", name(Step(ctx, "pay")))
		seen := map[string]bool{}
		for _, s := range []context.Context{
			Step(ctx, "pay"), Step(Step(ctx, "item 1"), "pay"), Step(Step(ctx, "item 2"), "pay"), Step(Step(ctx, "pay"), "item 1"),
		} {
			require.False(t, seen[name(s)])
			seen[name(s)] = true
		}
		require.Panics(t, func() { Step(ctx, "") })
		require.Panics(t, func() { Step(ctx, "a\x00b") })

		r, err := New(&nothing{}, nil)
		require.NoError(t, err)
		_, _ = r.Do(Step(ctx, "pay"), "k2", func(ctx context.Context) ([]byte, error) {
			require.Empty(t, name(ctx), "the step is the outer call's")
			return nil, context.Canceled
		})
	})
}

func TestAStepIsPinnedToOneContentForOneRun(t *testing.T) {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	for range 2 {
		inside(t, "k", func(ctx context.Context) {
			require.True(t, Pin(ctx, "one", a))
			require.True(t, Pin(ctx, "one", a))
			require.False(t, Pin(ctx, "one", b))
			require.True(t, Pin(ctx, "two", b))
		})
		a, b = b, a
	}
	require.Panics(t, func() { Pin(t.Context(), "one", a) })
}
