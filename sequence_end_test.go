package oncelog_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// A source handled strictly in order that begins with the last number there is: what is awaited is written as the
// number above it, and there is none. Were it 0, the number would pass for handled although its work failed.
func TestASourceThatBeginsWithTheLastNumber(t *testing.T) {
	s, err := oncelog.Open(filepath.Join(t.TempDir(), "store"), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	r, err := s.Receiver(&receiver.Options{Window: receiver.Strict})
	require.NoError(t, err)
	runs := 0
	do := func(seq uint64, result error) error {
		out, err := r.DoSeq(context.Background(), "source", seq, func(context.Context) ([]byte, error) { runs++; return nil, result })
		if err == nil && out.Replayed {
			err = errors.New("handled already")
		}
		return err
	}
	err = do(math.MaxUint64, errors.New("not now"))
	require.ErrorIs(t, err, receiver.ErrOutOfOrder)
	require.ErrorContains(t, err, "18446744073709551615")
	require.Zero(t, runs)
	_, ok, err := r.HighWater(context.Background(), "source")
	require.NoError(t, err)
	require.False(t, ok, "it was not handled")

	// One that comes to its end is refused what follows, and told that nothing does.
	require.NoError(t, do(math.MaxUint64-1, nil))
	require.ErrorContains(t, do(math.MaxUint64-1, nil), "handled already")
	require.NoError(t, do(math.MaxUint64, nil))
	require.ErrorIs(t, do(0, nil), receiver.ErrTooOld)
	require.Equal(t, 2, runs)
}
