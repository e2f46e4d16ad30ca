package memory

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync"

	"github.com/oncelog/oncelog"
)

const childEnv = "ONCELOG_MEMORY_CHILD"

type step string

const (
	stepWork   step = "store and ask" // a new store
	stepOpen   step = "open, ask"     // what stepWork has left
	stepReplay step = "replay, ask"   // the same without a snapshot
)

// job is what a child is told to do.
type job struct {
	Dir, Procs string
	Step       step
	Bytes      int64 // of the values that are stored, about
	GoLimit    int64 // what a service would say in GOMEMLIMIT, in bytes
}

// report is what it says at the end.
type report struct{ Keys, LogBytes, IndexBytes, Asked int64 }

const (
	valueSize = 1000
	inTx      = 64
)

func (j *job) keys() int { return int(j.Bytes / valueSize / inTx * inTx) }

func key(i int) []byte { return fmt.Appendf(nil, "key %d", i) }

// value is a value of which each byte says whose it is.
func value(i int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(i), 7))
	v := make([]byte, 0, valueSize+8)
	for len(v) < valueSize {
		v = binary.LittleEndian.AppendUint64(v, rnd.Uint64())
	}
	return v
}

func (j *job) run() error {
	debug.SetMemoryLimit(j.GoLimit)
	if err := os.WriteFile(j.Procs, []byte("0"), 0); err != nil {
		return fmt.Errorf("join the group: %w", err)
	}
	st, err := oncelog.Open(j.Dir, &oncelog.Options{Sync: oncelog.SyncNever, MustExist: j.Step != stepWork})
	if err != nil {
		return err
	}
	var r report
	half := j.keys() / 2 / inTx * inTx
	if j.Step == stepWork {
		if err := put(st, 0, half); err != nil {
			return err
		}
		// And while half of it is asked for, the other half.
		var putting sync.WaitGroup
		var putErr error
		putting.Go(func() { putErr = put(st, half, j.keys()) })
		err := ask(st, half, &r)
		putting.Wait()
		if err := errors.Join(err, putErr); err != nil {
			return err
		}
		if err := errors.Join(st.Compact(), st.Snapshot()); err != nil {
			return err
		}
	}
	if err := ask(st, j.keys(), &r); err != nil {
		return err
	}
	if j.Step == stepWork {
		if err := st.Verify(); err != nil {
			return err
		}
	}
	n := int64(0)
	for rec, err := range st.Records() {
		if err != nil {
			return err
		}
		if len(rec.Value) != valueSize {
			return fmt.Errorf("%q has %d bytes", rec.Key, len(rec.Value))
		}
		n++
	}
	s := st.Stats()
	if r.Keys, r.LogBytes, r.IndexBytes = s.Keys, s.DiskBytes, s.IndexBytes; n != r.Keys || n != int64(j.keys()) {
		return fmt.Errorf("%d records are listed, %d counted, and %d were stored", n, r.Keys, j.keys())
	}
	if err := st.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// put stores the keys from one to another.
func put(st *oncelog.Store, from, to int) error {
	for ; from < to; from += inTx {
		err := st.Update(func(tx *oncelog.Tx) error {
			for i := from; i < from+inTx; i++ {
				if err := tx.PutRecord(key(i), value(i), 0); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ask asks for keys below n, which are there, and for others.
func ask(st *oncelog.Store, n int, r *report) error {
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	for range n / 64 {
		i := rnd.IntN(n)
		v, ok, err := st.Get(key(i))
		if err != nil {
			return err
		}
		if !ok || !bytes.Equal(v, value(i)) {
			return fmt.Errorf("key %d: there %v, %d bytes", i, ok, len(v))
		}
		v, inserted, err := st.PutIfAbsent(key(rnd.IntN(n)), nil, 0)
		if err != nil || inserted || len(v) != valueSize {
			return fmt.Errorf("a key that exists: inserted %v, %d bytes, %w", inserted, len(v), err)
		}
		if ok, err := st.Has(fmt.Appendf(nil, "nobody's %d", i)); err != nil || ok {
			return fmt.Errorf("a key that nobody stored: there %v, %w", ok, err)
		}
		r.Asked += 3
	}
	return nil
}
