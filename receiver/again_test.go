package receiver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// flaky is a store that fails to complete so many times, and keeps what it was given then.
type flaky struct {
	nothing
	fails int
	kept  Result
}

var errFlaky = errors.New("a read failed")

func (s *flaky) Complete(_ context.Context, _ []byte, _ uint64, res Result) (time.Time, error) {
	if s.fails > 0 {
		s.fails--
		return time.Time{}, errFlaky
	}
	s.kept = res
	return time.Time{}, nil
}

func (s *flaky) CompleteAll(ctx context.Context, all []Completion) []Completed {
	ends := make([]Completed, len(all))
	for i := range all {
		ends[i].Until, ends[i].Err = s.Complete(ctx, all[i].Key, all[i].Token, all[i].Result)
	}
	return ends
}

// What fails once need not be the result's fault: it is tried again before it is given up, and given up before the key is.
func TestAResultIsWorthASecondTry(t *testing.T) {
	fn := func(context.Context) ([]byte, error) { return []byte("v"), nil }
	for name, do := range map[string]func(r *Receiver) ([]byte, error){
		"Do": func(r *Receiver) ([]byte, error) {
			out, err := r.Do(t.Context(), "k", fn)
			return out.Value, err
		},
		"DoAll": func(r *Receiver) ([]byte, error) {
			out, err := r.DoAll(t.Context(), []Call{{Key: "k", Fn: fn}})
			if len(out) == 0 {
				return nil, err
			}
			return out[0].Value, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for fails, kept := range []Result{{Kind: KindValue, Value: []byte("v")}, {Kind: KindValue, Value: []byte("v")}, {Kind: KindGone}} {
				s := &flaky{fails: fails}
				r, err := New(s, nil)
				require.NoError(t, err)
				v, err := do(r)
				require.NoError(t, err)
				require.Equal(t, "v", string(v), "the first caller has it either way")
				require.Equal(t, kept, s.kept, "after %d failures", fails)
			}
			s := &flaky{fails: 3}
			r, err := New(s, nil)
			require.NoError(t, err)
			_, err = do(r)
			require.ErrorIs(t, err, ErrUnrecorded)
			require.ErrorIs(t, err, errFlaky)
		})
	}
}
