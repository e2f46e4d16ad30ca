package decoders

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var write = flag.Bool("decoders.seeds", false, "write the seeds of fuzz targets to testdata, instead of looking whether they are there")

// Corpus is the directory of a target's seeds, below that of its package.
func Corpus(target string) string { return filepath.Join("testdata", "fuzz", target) }

// Seed is one input of a target: its name, and the arguments.
type Seed struct {
	Name string
	Args []any
}

// Seeds sees to it that a target's seeds are there. Some encoders choose something at random, so it is not asked
// whether they would write the same again.
func Seeds(t testing.TB, target string, seeds []Seed) {
	t.Helper()
	for _, s := range seeds {
		path := filepath.Join(Corpus(target), s.Name)
		if *write {
			if err := os.MkdirAll(Corpus(target), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, encode(s.Args), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v; write it with -decoders.seeds", err)
		}
	}
}

// encode is the file format of go test's corpus.
func encode(args []any) []byte {
	var b bytes.Buffer
	b.WriteString("go test fuzz v1\n")
	for _, a := range args {
		switch a := a.(type) {
		case []byte:
			fmt.Fprintf(&b, "[]byte(%q)\n", a)
		case string:
			fmt.Fprintf(&b, "string(%q)\n", a)
		default:
			fmt.Fprintf(&b, "%T(%v)\n", a, a)
		}
	}
	return b.Bytes()
}

// Damaged returns the seeds, and of each that begins with bytes three more: cut short, with a bit flipped, and with
// bytes behind it.
func Damaged(seeds []Seed) []Seed {
	all := seeds
	for _, s := range seeds {
		whole, ok := s.Args[0].([]byte)
		if !ok || len(whole) < 2 {
			continue
		}
		with := func(how string, b []byte) {
			all = append(all, Seed{s.Name + "-" + how, append([]any{b}, s.Args[1:]...)})
		}
		flipped := bytes.Clone(whole)
		flipped[len(whole)/2] ^= 0x10
		with("cut-short", whole[:len(whole)*2/3])
		with("with-a-bit-flipped", flipped)
		with("with-more-behind", append(bytes.Clone(whole), 0, 1, 0xff))
	}
	return all
}
