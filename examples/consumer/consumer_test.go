package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/examples/consumer"
	"github.com/oncelog/oncelog/receiver"
)

// partition delivers from the last commit on, which it forgets now and then.
type partition struct {
	messages  []consumer.Message
	committed uint64
	commits   int
}

var errEnd = errors.New("no more")

func (p *partition) Name() string { return "orders/0" }

func (p *partition) Fetch(context.Context) ([]consumer.Message, error) {
	if p.committed >= uint64(len(p.messages)) {
		return nil, errEnd
	}
	return p.messages[p.committed:min(p.committed+10, uint64(len(p.messages)))], nil
}

func (p *partition) Commit(_ context.Context, next uint64) error {
	p.committed = next
	if p.commits++; p.commits%7 == 0 {
		p.committed -= min(p.committed, 5)
		return errors.New("the broker went away, and the commit with it")
	}
	return nil
}

// Handling fails now and then, the broker forgets, the service is restarted each time: every message has its effect
// once.
func TestEachMessageOnce(t *testing.T) {
	p := &partition{}
	for i := range 100 {
		p.messages = append(p.messages, consumer.Message{Offset: uint64(i), Payload: fmt.Append(nil, i)})
	}
	effects, failures := map[string]int{}, 0
	handle := func(_ context.Context, payload []byte) error {
		switch n := len(effects); {
		case string(payload) == "66":
			return receiver.Permanent(errors.New("nobody understands this one"))
		case n%10 == 9 && failures < n/10+1:
			failures++
			return errors.New("later")
		}
		effects[string(payload)]++
		return nil
	}
	dir := filepath.Join(t.TempDir(), "store")
	restarts := 0
	for err := error(nil); !errors.Is(err, errEnd); restarts++ {
		st, openErr := oncelog.Open(dir, nil)
		require.NoError(t, openErr)
		r, openErr := st.Receiver(nil)
		require.NoError(t, openErr)
		err = consumer.Run(t.Context(), r, p, handle)
		require.NoError(t, st.Close())
	}
	require.Greater(t, restarts, 10)
	require.Len(t, effects, 99)
	for payload, n := range effects {
		require.Equal(t, 1, n, payload)
	}
}
