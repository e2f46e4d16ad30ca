package wal

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Where the clock stands still, as in a bubble of testing/synctest for as long as somebody runs, a leader does not wait for
// ever for those who don't come.
func TestALeaderWithoutAClock(t *testing.T) {
	dir := create(t, small(never))
	l := reopen(t, dir, small(never), []string{})
	_, err := commit(l, "outside")
	require.NoError(t, err)
	l.expected, l.took = 64, time.Second // as after a batch of many
	synctest.Test(t, func(t *testing.T) {
		_, err := commit(l, "inside")
		require.NoError(t, err)
	})
	require.NoError(t, l.Close())
}
