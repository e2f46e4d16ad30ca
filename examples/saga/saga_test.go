package saga_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/examples/saga"
	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

// service keeps its answers by key.
type service struct {
	name    string
	refuses bool

	mu      sync.Mutex
	answers map[string]error
	has     int // effects less those that were undone
	ever    int
}

func (s *service) do(ctx context.Context, key string, by int) error {
	if err := oncetest.Step(ctx, "the request to "+s.name); err != nil {
		return err
	}
	s.mu.Lock()
	err, known := s.answers[key]
	if !known {
		if by > 0 && s.refuses {
			err = saga.ErrRefused
		} else {
			s.has += by
			s.ever++
		}
		s.answers[key] = err
	}
	s.mu.Unlock()
	if lost := oncetest.Step(ctx, "the answer of "+s.name); lost != nil {
		return lost
	}
	return err
}

func world(refusing string) (services map[string]*service, steps []saga.Step) {
	services = map[string]*service{}
	for _, name := range []string{"seat", "card", "parcel"} {
		s := &service{name: name, refuses: name == refusing, answers: map[string]error{}}
		services[name] = s
		steps = append(steps, saga.Step{
			Name: name,
			Do:   func(ctx context.Context, key string) error { return s.do(ctx, key, 1) },
			Undo: func(ctx context.Context, key string) error { return s.do(ctx, key, -1) },
		})
	}
	return services, steps
}

// Whatever goes wrong at whatever step, the three steps have their effect once.
func TestTheStepsHappenOnce(t *testing.T) {
	for _, name := range []string{"seat", "card", "parcel"} {
		oncetest.Check(t, func(testing.TB) oncetest.Handler {
			services, steps := world("")
			return oncetest.Handler{
				Handle:  func(ctx context.Context, r *receiver.Receiver) error { return saga.Run(ctx, r, "order-1", steps) },
				Effects: func(*receiver.Receiver) int { return services[name].ever },
			}
		})
	}
}

// When the last is refused, the first two were done once and undone once.
func TestARefusedStepIsUndoneOnce(t *testing.T) {
	for _, name := range []string{"seat", "card"} {
		oncetest.Check(t, func(t testing.TB) oncetest.Handler {
			services, steps := world("parcel")
			return oncetest.Handler{
				Handle: func(ctx context.Context, r *receiver.Receiver) error {
					err := saga.Run(ctx, r, "order-1", steps)
					var refused *receiver.StoredError
					if errors.As(err, &refused) {
						return nil // that is the answer, and the sender may stop
					}
					return err
				},
				Effects: func(*receiver.Receiver) int {
					require.Zero(t, services[name].has)
					return services[name].ever / 2 // done and undone
				},
			}
		})
	}
}
