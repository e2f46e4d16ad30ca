package oncelog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

// modelKey is a key of the receiver's, or a number of a source.
type modelKey struct {
	scope, key, source string
	epoch, seq         uint64
}

func (k modelKey) of() modelSource { return modelSource{k.scope, k.source} }

type modelSource struct{ scope, source string }

// modelResult is what is recorded under a key: KindDoubt for an intent too, which is one when its call is over.
type modelResult struct {
	kind           receiver.Kind
	value, payload string // of a failure the message
	expires        int64
	valueExpires   int64 // 0 = with the key
}

// The scopes and sources of the model. Keys are those of everything else.
var (
	modelScopes  = []string{"", "x"}
	modelSources = []string{"a", "b"}
)

const modelNumbers, modelEpochs = 12, 2

// encoded is the key as the store sees it, by the rules of package receiver.
func (k modelKey) encoded() []byte {
	var names []string
	if k.scope != "" {
		names = append(names, k.scope)
	}
	if k.source != "" {
		number := binary.AppendUvarint(binary.AppendUvarint(nil, k.epoch), k.seq)
		names = append(names, k.source, string(number))
	}
	b := []byte{byte(len(names))}
	for _, n := range names {
		b = append(append(b, byte(len(n))), n...)
	}
	return append(b, k.key...)
}

func (s modelSource) encoded() []byte { return modelKey{scope: s.scope, key: s.source}.encoded() }

func (k modelKey) String() string {
	if k.source != "" {
		return fmt.Sprintf("%s/%s#%d.%d", k.scope, k.source, k.epoch, k.seq)
	}
	return k.scope + "/" + k.key
}

// modelEnd is how fn ends.
type modelEnd int

const (
	endsWell modelEnd = iota
	wasDone           // Already
	fails
	failsForGood // Permanent
	noAnswer     // Unknown
	notDone
	canceled
	panics
	modelEnds
)

// modelCall is a call of Do or its likes.
type modelCall struct {
	modelKey
	tx             bool
	end            modelEnd
	value, payload string
	intent         bool
	policy         receiver.DoubtPolicy
	resolution     int
	ttl, resultTTL time.Duration

	doubted, settled bool // of a call that runs: what it found
	gone             bool // there was no room for its result
}

func (m *model) drawCall(t *rapid.T) *modelCall {
	c := &modelCall{}
	c.scope = rapid.SampledFrom([]string{"", "", "", modelScopes[1]}).Draw(t, "scope")
	if rapid.Bool().Draw(t, "a number") {
		c.source = rapid.SampledFrom(modelSources).Draw(t, "source")
		c.epoch, c.seq = rapid.Uint64Range(0, 9).Draw(t, "epoch")/9, rapid.Uint64Range(0, modelNumbers-1).Draw(t, "seq")
		if next := m.all.sources[c.of()]; rapid.Bool().Draw(t, "the next") {
			c.epoch, c.seq = next.epoch, min(next.number+1, modelNumbers-1)
		}
	} else {
		c.key = modelKeys.Draw(t, "key")
	}
	if known := sortedKeys(m.all.results); len(known) > 0 && rapid.Bool().Draw(t, "again") {
		c.modelKey = rapid.SampledFrom(known).Draw(t, "known")
	}
	m.values++
	if c.value = modelValue(t); c.value != "" {
		c.value = fmt.Sprint(m.values, " ", c.value)
		c.value = c.value[:min(len(c.value), max(m.o.MaxValueSize, 600)+rapid.IntRange(0, 1).Draw(t, "too large"))]
		c.resultTTL = rapid.SampledFrom([]time.Duration{0, 0, 1, time.Second, time.Hour}).Draw(t, "result TTL")
	}
	c.end = modelEnd(rapid.IntRange(-3, int(modelEnds)-1).Draw(t, "end"))
	c.end = max(c.end, endsWell)
	c.payload = rapid.SampledFrom([]string{"", "", "p", "q"}).Draw(t, "payload")
	c.intent = m.o.MaxBytes == 0 && rapid.IntRange(0, 3).Draw(t, "intent") == 0
	c.policy = receiver.DoubtPolicy(rapid.IntRange(int(receiver.Block), int(receiver.Resolve)).Draw(t, "policy"))
	c.resolution = rapid.IntRange(0, 3).Draw(t, "resolution")
	c.ttl = modelTTLs.Draw(t, "ttl")
	return c
}

// modelResolutions are what may be found out about a doubt: nothing, first of all.
var modelResolutions = []receiver.Resolution{
	{}, receiver.Happened([]byte("it happened")), receiver.HappenedNot(), receiver.Failed(errors.New("it failed")),
}

func sortedKeys(results map[modelKey]modelResult) []modelKey {
	return slices.SortedFunc(maps.Keys(results), func(a, b modelKey) int { return strings.Compare(a.String(), b.String()) })
}

func (m *model) receiver(t *rapid.T, scope string) *receiver.Receiver {
	r, err := m.s.Receiver(&receiver.Options{
		Window:  m.window,
		Resolve: func(context.Context, receiver.Doubt) (receiver.Resolution, error) { return m.resolve, nil },
		Quota: func(scope string) receiver.Quota {
			if scope == modelScopes[1] {
				return receiver.Quota{Keys: m.quota}
			}
			return receiver.Quota{}
		},
	})
	require.NoError(t, err)
	if scope != "" {
		r = r.Scope(scope)
	}
	return r
}

func (c *modelCall) options() []receiver.CallOption {
	o := []receiver.CallOption{
		receiver.WithTTL(c.ttl), receiver.WithResultTTL(c.resultTTL), receiver.WithEpoch(c.epoch), receiver.OnDoubt(c.policy),
	}
	if c.payload != "" {
		o = append(o, receiver.WithPayload([]byte(c.payload)))
	}
	if c.intent {
		o = append(o, receiver.WithIntent([]byte("a note")))
	}
	return o
}

// quotaKeys returns how many keys of a scope count at least, and at most: what has expired may count to the end of its
// step, or be forgotten before.
func (m *model) quotaKeys(scope string) (least, most int64) {
	for k, r := range m.all.results {
		if k.scope != scope {
			continue
		}
		if m.now() < r.expires {
			least++
		}
		if m.now() < m.s.scopes.end(r.expires) {
			most++
		}
	}
	return least, most
}

// admitted requires that a call which runs was within the quota, beside so many others that have no record yet.
func (m *model) admitted(t *rapid.T, c *modelCall, others int) {
	if m.quota == 0 || c.scope != modelScopes[1] || c.doubted {
		return
	}
	least, _ := m.quotaKeys(c.scope)
	require.Less(t, least+int64(others), m.quota)
	m.saw("within the quota")
}

// isOver reports whether a call was refused because of the quota, and requires that it may have been used up, by what is
// recorded and so many others.
func (m *model) isOver(t *rapid.T, scope string, err error, others int) bool {
	if !errors.Is(err, receiver.ErrQuota) {
		return false
	}
	require.NotZero(t, m.quota)
	require.Equal(t, modelScopes[1], scope)
	_, most := m.quotaKeys(scope)
	require.GreaterOrEqual(t, most+int64(others), m.quota)
	m.saw("over the quota")
	return true
}

// modelAnswer is what a call returns.
type modelAnswer struct {
	ran, replayed bool
	value, until  string
	err           error  // that it matches
	failure       string // of a failure that was stored, its message
}

func told(out receiver.Outcome, ran bool, err error) (a modelAnswer) {
	a = modelAnswer{ran: ran, replayed: out.Replayed, value: string(out.Value), until: untilText(out.Until), err: err}
	var stored *receiver.StoredError
	if errors.As(err, &stored) {
		a.failure, a.err = stored.Message, nil
	}
	return a
}

func (m *model) requireAnswer(t *rapid.T, a, got modelAnswer) {
	for what, is := range map[string]bool{
		"ran": a.ran, "replayed": a.replayed && !a.ran, "failed": a.failure != "", "result gone": a.err == receiver.ErrResultGone,
		"reused": a.err == receiver.ErrKeyReused, "in doubt": a.err == receiver.ErrInDoubt, "too old": a.err == receiver.ErrTooOld,
		"fenced": a.err == receiver.ErrFenced, "out of order": a.err == receiver.ErrOutOfOrder,
	} {
		if is {
			m.saw(what)
		}
	}
	if a.err != nil {
		require.ErrorIs(t, got.err, a.err)
		got.err = a.err
	}
	require.Equal(t, a, got)
}

func untilText(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return fmt.Sprint(at.UnixMilli())
}

// until is what Until is for an expiry: by whichever clock it is earlier.
func (m *model) until(expires int64) string {
	if expires == record.Forever {
		return "never"
	}
	return fmt.Sprint(min(expires, m.clock.ms.Load()+expires-m.now()))
}

// result is what is recorded under a key and lives.
func (m *model) result(k modelKey) (r modelResult, ok bool) {
	r, ok = m.all.results[k]
	if r.valueExpires > 0 && m.now() >= r.valueExpires {
		r.kind, r.value = receiver.KindGone, ""
	}
	return r, ok && m.now() < r.expires
}

// replay is the answer that a result is.
func (m *model) replay(r modelResult, payload string) modelAnswer {
	a := modelAnswer{replayed: true, until: m.until(r.expires)}
	switch {
	case payload != "" && r.payload != "" && payload != r.payload:
		return modelAnswer{until: "never", err: receiver.ErrKeyReused}
	case r.kind == receiver.KindFailure:
		a.failure = r.value
	case r.kind == receiver.KindGone:
		a.err = receiver.ErrResultGone
	default:
		a.value = r.value
	}
	return a
}

// judge says what a call gets, unless its fn runs.
func (m *model) judge(c *modelCall) (a modelAnswer, runs bool) {
	refuse := func(err error) (modelAnswer, bool) { return modelAnswer{until: "never", err: err}, false }
	if errs := m.wrong(len(c.encoded()), 0, 0); len(errs) > 0 {
		return refuse(errs[0])
	}
	r, ok := m.result(c.modelKey)
	if ok && r.kind != receiver.KindDoubt {
		return m.replay(r, c.payload), false
	}
	if errs := m.wrong(0, 0, c.ttl); len(errs) > 0 {
		return refuse(errs[0])
	}
	if c.doubted = ok; ok {
		if c.payload != "" && r.payload != "" && c.payload != r.payload {
			return refuse(receiver.ErrKeyReused)
		}
		switch {
		case c.policy == receiver.Retry:
			return a, true
		case c.policy == receiver.Block || c.resolution == 0:
			return refuse(receiver.ErrInDoubt)
		}
		c.settled = c.resolution == 2
		return a, c.settled
	}
	if c.source != "" {
		k, there := m.all.sources[c.of()]
		kind, err := k.judge(there, c.epoch, c.seq, m.window)
		if err != nil {
			return refuse(err)
		}
		if kind != 0 {
			return m.replay(modelResult{kind: kind, expires: record.Forever}, ""), false
		}
	}
	return a, true
}

// resolved reports whether the call ends with what Options.Resolve says.
func (c *modelCall) resolved() bool {
	return c.doubted && c.policy == receiver.Resolve && (c.resolution == 1 || c.resolution == 3)
}

// claimed is what is recorded before fn runs.
func (m *model) claimed(c *modelCall) {
	if c.doubted {
		return
	}
	if c.source != "" && m.window == receiver.Strict {
		if k, ok := m.all.sources[c.of()]; !ok || k.epoch < c.epoch {
			m.all.sources[c.of()] = modelMark{awaits: true, number: c.seq, epoch: c.epoch, first: c.seq + 1}
			m.committed()
		}
	}
	if c.intent {
		m.all.results[c.modelKey] = modelResult{kind: receiver.KindDoubt, payload: c.payload, expires: record.Forever}
		m.committed()
	}
}

// record records a result, and returns when it goes.
func (m *model) record(c *modelCall, kind receiver.Kind, value string) (until string) {
	if c.gone || len(m.wrong(0, len(value), 0)) > 0 {
		kind, value = receiver.KindGone, ""
	}
	r := modelResult{kind: kind, value: value, payload: c.payload, expires: m.expires(c.ttl)}
	if ms := (c.resultTTL + time.Millisecond - 1).Milliseconds(); ms > 0 && kind == receiver.KindValue && m.now()+ms < r.expires {
		r.valueExpires = m.now() + ms
	}
	if c.source == "" {
		m.all.results[c.modelKey] = r
		return m.until(r.expires)
	}
	k, there := m.all.sources[c.of()]
	tells := k.tells(there, c.epoch, c.seq, m.window)
	kept := kind != receiver.KindValue || value != "" || c.payload != "" || !tells
	if tells {
		m.all.sources[c.of()] = k.handle(there, c.epoch, c.seq, m.window, kept)
	}
	switch {
	case kept:
		m.all.results[c.modelKey] = r
		return m.until(r.expires)
	case c.intent || c.doubted:
		delete(m.all.results, c.modelKey)
	}
	return "never"
}

// release is the end of a call without a result.
func (m *model) release(c *modelCall) {
	if c.settled || c.intent && !c.doubted {
		delete(m.all.results, c.modelKey)
	}
}

// ended is what a call whose fn has run records and returns.
func (m *model) ended(c *modelCall) modelAnswer {
	a := modelAnswer{ran: true, until: "never"}
	inDoubt := func() {
		if a.err = receiver.ErrInDoubt; !c.doubted {
			m.all.results[c.modelKey] = modelResult{kind: receiver.KindDoubt, payload: c.payload, expires: record.Forever}
		}
	}
	switch c.end {
	case endsWell, wasDone:
		a.value, a.replayed = c.value, c.end == wasDone
		a.until = m.record(c, receiver.KindValue, c.value)
	case failsForGood:
		a.failure = errModel.Error()
		a.until = m.record(c, receiver.KindFailure, a.failure)
	case noAnswer:
		inDoubt()
	case canceled:
		if a.err = context.Canceled; c.intent {
			inDoubt()
		} else {
			m.release(c)
		}
	case panics:
		if a.err = errModel; c.intent {
			inDoubt()
			a.err = errModel
		} else {
			m.release(c)
		}
	default:
		a.err = errModel
		m.release(c)
	}
	return a
}

// fn is the work's end.
func (c *modelCall) fn() ([]byte, error) {
	switch c.end {
	case wasDone:
		return nil, receiver.Already([]byte(c.value))
	case fails:
		return nil, errModel
	case failsForGood:
		return nil, receiver.Permanent(errModel)
	case noAnswer:
		return nil, receiver.Unknown(errModel)
	case notDone:
		return nil, receiver.NotDone(errModel)
	case canceled:
		return nil, context.Canceled
	case panics:
		panic(errModel)
	}
	return []byte(c.value), nil
}

// do makes a call of Do, DoTx, DoSeq or DoSeqTx.
func (m *model) do(t *rapid.T) {
	c := m.drawCall(t)
	c.tx = rapid.Bool().Draw(t, "in a transaction")
	before := m.all.clone()
	want, runs := m.judge(c)
	m.resolve = modelResolutions[c.resolution]
	ran := false
	undone := before
	fn := func() ([]byte, error) {
		ran = true
		require.True(t, runs, "fn of a key that %+v", before.results[c.modelKey])
		m.admitted(t, c, 0)
		m.claimed(c)
		undone = m.all.clone()
		return nil, nil
	}
	out, err := m.invoke(t, c, fn)
	switch {
	case m.isOver(t, c.scope, err, 0): // what lives, and what is in doubt, is not asked
		require.True(t, runs && !c.doubted && !ran)
	case m.isFull(t, err): // a transaction at its end, or the claim, of a key in doubt too
		require.True(t, runs || c.doubted)
		if m.all = undone; ran {
			m.release(c)
		}
	case runs:
		if c.end != endsWell && c.end != wasDone {
			m.all = undone
		} else if c.tx && m.o.MaxBytes > 0 {
			// A transaction for which there is room only without the result is committed without it.
			found, err := backend{m.s}.Inspect(context.Background(), c.encoded())
			require.NoError(t, err)
			c.gone = found.Result.Kind == receiver.KindGone && len(m.wrong(0, len(c.value), 0)) == 0 && m.isFull(t, ErrFull)
		}
		want = m.ended(c)
		m.requireAnswer(t, want, told(out, ran, err))
	case c.resolved() && want == (modelAnswer{}):
		kind, value := receiver.KindValue, "it happened"
		if c.resolution == 3 {
			kind, value = receiver.KindFailure, "it failed"
		}
		r := modelResult{kind: kind, value: value, payload: c.payload}
		until := m.record(c, kind, value)
		want = m.replay(r, "")
		want.until = until
		m.saw("resolved")
		m.requireAnswer(t, want, told(out, ran, err))
	default:
		m.requireAnswer(t, want, told(out, ran, err))
	}
	m.committed()
}

// invoke makes the call. A panic of errModel is an error here.
func (m *model) invoke(t *rapid.T, c *modelCall, begins func() ([]byte, error)) (out receiver.Outcome, err error) {
	defer func() {
		if p := recover(); p == errModel {
			err = errModel
		} else if p != nil {
			panic(p)
		}
	}()
	r, ctx := m.receiver(t, c.scope), context.Background()
	fn := func(context.Context) ([]byte, error) {
		_, _ = begins()
		return c.fn()
	}
	fnTx := func(_ context.Context, tx receiver.Tx) ([]byte, error) {
		_, _ = begins()
		m.steps(t, tx, nil)
		return c.fn()
	}
	switch {
	case c.tx && c.source != "":
		return r.DoSeqTx(ctx, c.source, c.seq, fnTx, c.options()...)
	case c.tx:
		return r.DoTx(ctx, c.key, fnTx, c.options()...)
	case c.source != "":
		return r.DoSeq(ctx, c.source, c.seq, fn, c.options()...)
	}
	return r.Do(ctx, c.key, fn, c.options()...)
}

// doAll makes a batch of calls in one scope. What they come to is recorded at the end, or before something that has to
// wait for it.
func (m *model) doAll(t *rapid.T) {
	scope := rapid.SampledFrom(modelScopes).Draw(t, "scope of all")
	resolution := rapid.IntRange(0, 3).Draw(t, "resolution of all")
	m.resolve = modelResolutions[resolution]
	var calls []*modelCall
	var all []receiver.Call
	ran := map[int]bool{}
	want := []modelAnswer{} // of those calls that came to something
	var open []*modelCall
	var places []int
	flush := func() {
		for _, gone := range []bool{false, true} { // what is too large is tried again without its value, after the others
			for i, c := range open {
				if (c.end != failsForGood && len(m.wrong(0, len(c.value), 0)) > 0) == gone {
					want[places[i]] = m.ended(c)
				}
			}
			if len(open) > 0 {
				m.committed() // each is a transaction
			}
		}
		open, places = nil, nil
	}
	single := func(c *modelCall, at int) {
		want[at] = m.ended(c)
		m.committed()
	}
	// Each call is judged when its turn has come, which is when its fn runs or, if it does not, afterwards: nothing
	// has changed meanwhile that was not known.
	judged := 0
	judge := func(at int) (runs bool) {
		c := calls[at]
		judged = at + 1
		want = append(want, modelAnswer{})
		if slices.ContainsFunc(open, func(o *modelCall) bool { return o.modelKey == c.modelKey }) {
			flush()
		}
		a, runs := m.judge(c)
		if errors.Is(a.err, receiver.ErrOutOfOrder) && len(open) > 0 {
			flush()
			a, runs = m.judge(c)
		}
		if c.doubted {
			flush()
		}
		if want[at] = a; c.resolved() && !runs && a == (modelAnswer{}) {
			kind, value := receiver.KindValue, "it happened"
			if resolution == 3 {
				kind, value = receiver.KindFailure, "it failed"
			}
			until := m.record(c, kind, value)
			want[at] = m.replay(modelResult{kind: kind, value: value}, "")
			want[at].until = until
			m.committed()
		}
		return runs
	}
	for at := range rapid.IntRange(1, 5).Draw(t, "calls") {
		c := m.drawCall(t)
		if c.scope, c.resolution = scope, resolution; c.end == panics {
			c.end = fails
		}
		call := receiver.Call{Key: c.key, Source: c.source, Seq: c.seq, Options: c.options()}
		call.Fn = func(context.Context) ([]byte, error) {
			for judged < at {
				require.False(t, judge(judged))
			}
			ran[at] = true
			require.True(t, judge(at))
			claimed := 0
			for _, o := range open {
				if _, known := m.all.results[o.modelKey]; !known {
					claimed++
				}
			}
			m.admitted(t, c, claimed)
			m.claimed(c)
			switch {
			case c.doubted || c.end != endsWell && c.end != wasDone && c.end != failsForGood:
				single(c, at)
			default:
				open, places = append(open, c), append(places, at)
			}
			return c.fn()
		}
		calls, all = append(calls, c), append(all, call)
	}
	outs, err := m.receiver(t, scope).DoAll(context.Background(), all)
	for at := range outs {
		if at >= judged {
			require.False(t, judge(at))
		}
	}
	if err != nil && len(outs) >= judged {
		require.Less(t, len(outs), len(calls))
		if m.isFull(t, err) || m.isOver(t, scope, err, len(calls)) {
			judged = len(outs) + 1
			want = append(want, modelAnswer{})
		} else {
			require.False(t, judge(len(outs)))
		}
	}
	flush()
	for at, out := range outs {
		m.requireAnswer(t, want[at], told(out, ran[at], nil))
	}
	if len(outs) > 1 {
		m.saw("a batch of several")
	}
	if err == nil {
		require.Len(t, outs, len(calls))
	} else {
		m.saw("a batch that stopped")
		require.Equal(t, judged, len(outs)+1, "it stops at the first that returns an error")
		if !errors.Is(err, ErrFull) && !errors.Is(err, receiver.ErrQuota) {
			a := want[len(outs)]
			got := told(receiver.Outcome{}, ran[len(outs)], err)
			require.Equal(t, []any{a.ran, a.failure}, []any{got.ran, got.failure})
			if a.err != nil {
				require.ErrorIs(t, got.err, a.err)
			} else {
				require.NotEmpty(t, a.failure)
			}
		}
	}
	m.committed()
}

// doubtful draws a key, one in doubt rather than not.
func (m *model) doubtful(t *rapid.T, number bool) modelKey {
	c := m.drawCall(t)
	doubts := slices.DeleteFunc(sortedKeys(m.all.results), func(k modelKey) bool {
		return m.all.results[k].kind != receiver.KindDoubt || (k.source != "") != number
	})
	if len(doubts) > 0 && rapid.IntRange(0, 3).Draw(t, "in doubt") > 0 {
		return rapid.SampledFrom(doubts).Draw(t, "doubt")
	}
	if number {
		return modelKey{scope: c.scope, source: rapid.SampledFrom(modelSources).Draw(t, "source"), epoch: c.epoch, seq: c.seq}
	}
	return modelKey{scope: c.scope, key: modelKeys.Draw(t, "key")}
}

func (m *model) settle(t *rapid.T)    { m.settles(t, m.doubtful(t, false)) }
func (m *model) settleSeq(t *rapid.T) { m.settles(t, m.doubtful(t, true)) }

func (m *model) settles(t *rapid.T, k modelKey) {
	how := rapid.IntRange(1, 3).Draw(t, "how")
	r, ctx := m.receiver(t, k.scope), context.Background()
	var err error
	window := m.window
	if k.source == "" {
		err = r.Settle(ctx, k.key, modelResolutions[how])
	} else {
		err = r.SettleSeq(ctx, k.source, k.epoch, k.seq, modelResolutions[how])
		window = max(window, 0)
	}
	if refused(t, err, m.wrong(len(k.encoded()), 0, 0)) || m.isFull(t, err) {
		return
	}
	defer m.committed()
	found, ok := m.result(k)
	if !ok || found.kind != receiver.KindDoubt {
		if mark, there := m.all.sources[k.of()]; !ok && k.source != "" {
			if _, wrong := mark.judge(there, k.epoch, k.seq, window); wrong != nil && !errors.Is(wrong, receiver.ErrTooOld) {
				require.ErrorIs(t, err, wrong)
				return
			}
		}
		require.ErrorIs(t, err, receiver.ErrNotInDoubt)
		return
	}
	require.NoError(t, err)
	m.saw("settled")
	c := &modelCall{modelKey: k, doubted: true}
	switch how {
	case 1:
		m.record(c, receiver.KindValue, "it happened")
	case 2:
		delete(m.all.results, k)
	case 3:
		m.record(c, receiver.KindFailure, "it failed")
	}
}

func (m *model) forgetKey(t *rapid.T) {
	k := m.doubtful(t, false)
	err := m.receiver(t, k.scope).Forget(context.Background(), k.key)
	if refused(t, err, m.wrong(len(k.encoded()), 0, 0)) || m.isFull(t, err) {
		return
	}
	require.NoError(t, err)
	delete(m.all.results, k)
	m.committed()
}

func (m *model) forgetReceiverSource(t *rapid.T) {
	k := m.doubtful(t, true)
	err := m.receiver(t, k.scope).ForgetSource(context.Background(), k.source)
	if m.isFull(t, err) {
		return
	}
	require.NoError(t, err)
	delete(m.all.sources, k.of())
	m.committed()
}

// describeReceiver tells what the receivers of a store answer that holds this.
func (m *model) describeReceiver(st modelState, all map[string]string) {
	var doubts []string
	for k, r := range st.results {
		if m.now() >= r.expires {
			continue
		}
		if r.valueExpires > 0 && m.now() >= r.valueExpires {
			r.kind, r.value = receiver.KindGone, ""
		}
		until := m.until(r.expires)
		if r.kind == receiver.KindDoubt {
			doubts = append(doubts, k.String())
			r.value, r.kind = "", 0
		}
		all["result "+k.String()] = fmt.Sprintf("%d %q until %s, %x", r.kind, r.value, until, fingerprintOf(r.payload))
	}
	slices.Sort(doubts)
	all["doubts"] = strings.Join(doubts, ", ")
	for s, k := range st.sources {
		if k.awaits {
			all["source "+s.scope+"/"+s.source] = fmt.Sprint("awaits ", k.epoch, " ", k.number, " ", k.floor)
			continue
		}
		all["source "+s.scope+"/"+s.source] = fmt.Sprint(k.describe(m.window), "; ", k.floor, " ", k.handled, " ", k.kept)
	}
}

func fingerprintOf(payload string) []byte {
	if payload == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(payload))
	return append([]byte{1}, sum[:16]...)
}

// readReceiver is all that the receivers of the store answer.
func (m *model) readReceiver(t *rapid.T, all map[string]string) {
	ctx := context.Background()
	var doubts []string
	for d, err := range m.receiver(t, "").Doubts(ctx) {
		require.NoError(t, err)
		doubts = append(doubts, modelKey{strings.Join(d.Scope, "/"), d.Key, d.Source, d.Epoch, d.Seq}.String())
	}
	slices.Sort(doubts)
	all["doubts"] = strings.Join(doubts, ", ")
	require.Equal(t, len(doubts), m.s.Stats().Doubts)
	status := func(k modelKey, st receiver.Status) {
		if st.State == receiver.StateAbsent {
			return
		}
		value := string(st.Result.Value) + st.Result.Message
		if st.State == receiver.StateDone {
			require.NotZero(t, st.Result.Kind)
		}
		all["result "+k.String()] = fmt.Sprintf("%d %q until %s, %x", st.Result.Kind, value, untilText(st.Until), st.Fingerprint)
	}
	for _, scope := range modelScopes {
		r := m.receiver(t, scope)
		for _, key := range modelKeyNames {
			k := modelKey{scope: scope, key: key}
			st, err := r.Lookup(ctx, key)
			if !refused(t, err, m.wrong(len(k.encoded()), 0, 0)) {
				require.NoError(t, err)
				status(k, st)
			}
		}
		for _, source := range modelSources {
			for n := range uint64(modelNumbers * modelEpochs) {
				k := modelKey{scope: scope, source: source, epoch: n / modelNumbers, seq: n % modelNumbers}
				c, err := backend{m.s}.Inspect(ctx, k.encoded())
				require.NoError(t, err)
				status(k, receiver.Status{State: c.State, Result: c.Result, Until: c.Until, Fingerprint: c.Fingerprint})
			}
			m.readSource(t, r, modelSource{scope, source}, all)
		}
	}
	for msg, err := range m.receiver(t, "").Outgoing(ctx) {
		require.NoError(t, err)
		topic := "topic " + msg.Topic
		if _, ok := all[topic]; ok {
			all[topic] += ","
		}
		all[topic] += string(msg.Payload)
	}
}

func (m *model) readSource(t *rapid.T, r *receiver.Receiver, s modelSource, all map[string]string) {
	ctx, name := context.Background(), "source "+s.scope+"/"+s.source
	n, err := m.s.name(record.ReceiverMarks, s.encoded())
	require.NoError(t, err)
	mark, ok, err := m.s.visibleMark(n) // with what decides later and nobody is told now
	require.NoError(t, err)
	seq, known, err := r.HighWater(ctx, s.source)
	require.NoError(t, err)
	require.Equal(t, ok && !mark.awaits(), known)
	switch {
	case !ok:
		return
	case !known:
		all[name] = fmt.Sprint("awaits ", mark.Epoch, " ", mark.Number, " ", mark.floor)
		return
	}
	text := fmt.Sprint(mark.Epoch, " ", seq, " from ", mark.first, ", missing")
	for gap, err := range r.Gaps(ctx, s.source) {
		require.NoError(t, err)
		text += fmt.Sprint(" ", gap)
	}
	var handled, kept uint64
	for n := range uint64(modelNumbers) {
		if n <= mark.Number && mark.has(n) {
			handled |= 1 << n
			if mark.kept.has(mark.Number - n) {
				kept |= 1 << n
			}
		}
	}
	all[name] = fmt.Sprint(text, "; ", mark.floor, " ", handled, " ", kept)
}
