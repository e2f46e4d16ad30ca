package receiver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"
)

// Message is a message that a transaction emitted.
type Message struct {
	Topic   string
	Ordinal uint64 // counts the messages of the topic, from 1
	Key     string // the idempotency key it travels with: the same each time it is handed on
	Payload []byte
	Emitted time.Time // the commit, by the store's clock
	Reason  string    // of a message that was parked
}

// How long a topic rests after publish has failed: twice as long each time, until it succeeds.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

// sentAtOnce is how many messages of a topic are handed on before that is recorded. After a crash as many may be handed
// on again; recording each would be a sync each.
const sentAtOnce = 64

// Relay hands the messages that transactions have emitted to publish, until ctx ends or the store fails: in order
// within a topic, each at least once, with the same key each time. nil from publish means that the message was handed
// on. A Permanent error parks it, and the topic goes on without it. After any other error the same message is tried
// again, later and later; other topics are not held up, for which publish is called at the same time, a topic a
// goroutine.
//
// What it returns when ctx ends is ctx's cause; joined to it, if the messages handed on last could not be recorded, is
// why: they will be handed on again.
//
// There is one Relay of a store at a time, another is ErrRelayed. When the embedded store is closed, Relay returns
// ErrClosed. errors.ErrUnsupported if the store keeps no messages.
func (r *Receiver) Relay(ctx context.Context, publish func(ctx context.Context, m Message) error) error {
	box, ok := r.store.(Outbox)
	if !ok {
		return r.unsupported("keeps no messages")
	}
	if !relays.begin(r.store) {
		return ErrRelayed
	}
	defer relays.end(r.store)
	ctx, stop := context.WithCancelCause(ctx)
	l := relay{r: r, box: box, publish: publish, stop: stop, busy: make(map[string]bool), idle: make(chan struct{}, 1)}
	defer func() {
		l.running.Wait()
		stop(nil)
		if l.panicked != nil {
			panic(l.panicked)
		}
	}()
	for {
		topics, changed, err := box.Topics(ctx)
		if err != nil {
			stop(err)
			return err
		}
		for _, name := range topics {
			l.start(ctx, name)
		}
		select {
		case <-changed:
		case <-l.idle:
		case <-ctx.Done():
			l.running.Wait()
			return l.end(context.Cause(ctx))
		}
	}
}

// end is what Relay returns when it ends for that cause.
func (l *relay) end(cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unrecorded == nil || errors.Is(cause, l.unrecorded) {
		return cause
	}
	return errors.Join(cause, l.unrecorded)
}

// relays are the stores whose messages are being handed on.
var relays relaySet

type relaySet struct {
	mu sync.Mutex
	m  map[Store]bool
}

func (s *relaySet) begin(store Store) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[store] {
		return false
	}
	if s.m == nil {
		s.m = make(map[Store]bool)
	}
	s.m[store] = true
	return true
}

func (s *relaySet) end(store Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, store)
}

// relay is a Relay in progress.
type relay struct {
	r       *Receiver
	box     Outbox
	publish func(ctx context.Context, m Message) error
	stop    context.CancelCauseFunc
	running sync.WaitGroup
	idle    chan struct{} // a topic has come to its end, and may have got more since it looked

	mu         sync.Mutex
	busy       map[string]bool
	panicked   any
	unrecorded error // why what was handed on last is not recorded
}

// start hands on what waits in a topic, on a goroutine of its own, unless one is at it.
func (l *relay) start(ctx context.Context, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[name] {
		return
	}
	l.busy[name] = true
	l.running.Go(func() {
		defer func() {
			if p := recover(); p != nil { // it goes on up where Relay was called
				l.mu.Lock()
				l.panicked = p
				l.mu.Unlock()
				l.stop(errors.New("receiver: publish panicked"))
			}
			l.mu.Lock()
			delete(l.busy, name)
			l.mu.Unlock()
			select {
			case l.idle <- struct{}{}:
			default:
			}
		}()
		if err := l.topic(ctx, name); err != nil && ctx.Err() == nil {
			l.stop(err)
		}
	})
}

// topic hands on what waits in a topic.
func (l *relay) topic(ctx context.Context, name string) (err error) {
	handed, recorded := uint64(0), uint64(0) // 0 = nothing yet
	record := func() error {
		if handed == recorded {
			return nil
		}
		err := l.box.Sent(context.WithoutCancel(ctx), name, handed)
		if err == nil {
			recorded = handed
		}
		return err
	}
	defer func() {
		if e := record(); e != nil {
			e = fmt.Errorf("receiver: what was handed on could not be recorded, it will be handed on again: %w", e)
			l.mu.Lock()
			l.unrecorded = e
			l.mu.Unlock()
			err = errors.Join(err, e)
		}
	}()
	pause := firstPause
	for ctx.Err() == nil {
		m, ok, err := l.box.Next(ctx, name, handed)
		if err != nil || !ok {
			return err
		}
		err = l.hand(ctx, m)
		var permanent *permanentError
		switch {
		case err == nil:
			if recorded == 0 {
				recorded = m.Ordinal - 1
			}
			handed, pause = m.Ordinal, firstPause
			if handed-recorded >= sentAtOnce {
				if err := record(); err != nil {
					return err
				}
			}
			continue
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &permanent):
			if err := record(); err != nil { // what comes before it is on its way, so it is the first
				return err
			}
			if err := l.box.Park(context.WithoutCancel(ctx), name, m.Ordinal, cut(err.Error(), maxMessage)); err != nil {
				return err
			}
			handed, recorded, pause = m.Ordinal, m.Ordinal, firstPause
			continue
		}
		if err := record(); err != nil {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, lastPause)
	}
	return nil
}

// hand calls publish with a context in which the message's key is that of a call, so that Derive and what builds on it
// work.
func (l *relay) hand(ctx context.Context, m Message) error {
	return l.publish(&call{Context: ctx, r: l.r, key: m.Key}, m)
}

// Outgoing yields the messages that wait to be handed on, topic by topic, in order. An error ends it.
func (r *Receiver) Outgoing(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		box, ok := r.store.(Outbox)
		if !ok {
			yield(Message{}, r.unsupported("keeps no messages"))
			return
		}
		topics, _, err := box.Topics(ctx)
		if err != nil {
			yield(Message{}, err)
			return
		}
		for _, topic := range topics {
			for after := uint64(0); ; {
				m, ok, err := box.Next(ctx, topic, after)
				if err != nil {
					yield(Message{}, err)
					return
				}
				if !ok {
					break
				}
				if !yield(m, nil) {
					return
				}
				after = m.Ordinal
			}
		}
	}
}

// Parked yields the messages that publish refused for good, in no order. An error ends it.
func (r *Receiver) Parked(ctx context.Context) iter.Seq2[Message, error] {
	box, ok := r.store.(Outbox)
	if !ok {
		return func(yield func(Message, error) bool) { yield(Message{}, r.unsupported("keeps no messages")) }
	}
	return box.Parked(ctx)
}

// Unpark puts a parked message at the end of its topic, durably, with the key it had. ErrNotParked if there is no such
// message.
func (r *Receiver) Unpark(ctx context.Context, topic string, ordinal uint64) error {
	box, ok := r.store.(Outbox)
	if !ok {
		return r.unsupported("keeps no messages")
	}
	return box.Unpark(ctx, topic, ordinal)
}
