package receiver

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/fuzz/decoders"
)

// A name of a path takes a byte at least, and in memory a string, in a slice that grows by doubling, of which the
// largest is garbage twice over.
const pathFactor = 64

// FuzzParseKey takes keys apart, and the scope off them, which must agree.
func FuzzParseKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var k Key
		var ok bool
		decoders.Bounded(t, len(b), pathFactor, func() { k, ok = ParseKey(b) })
		var names uint64
		var path []byte
		var scoped bool
		decoders.Bounded(t, len(b), 2, func() { names, path, scoped = ScopeOf(b) })
		if !ok {
			return
		}
		require.True(t, scoped, "it has a scope for one and none for the other")
		require.EqualValues(t, len(k.Scope), names)
		scope := rootScope
		for _, name := range k.Scope {
			scope = subScope(scope, name)
		}
		require.Equal(t, len(k.Scope), len(scopePath(scope)))
		var written []byte
		if k.Name != "" {
			written = appendKey(nil, scope, k.Name)
		} else {
			written = appendNumber(nil, scope, k.Source, k.Epoch, k.Seq)
		}
		require.LessOrEqual(t, len(written), len(b), "the shortest form is longer")
		again, ok := ParseKey(written)
		require.True(t, ok)
		require.Equal(t, k, again)
		if len(written) == len(b) { // the bytes say it in the shortest way: then the scopes' bytes are equal too
			_, twin, _ := ScopeOf(written)
			require.Equal(t, string(path), string(twin))
		}
	})
}

func TestSeeds(t *testing.T) {
	shop := subScope(rootScope, "shop")
	var seeds []decoders.Seed
	for name, b := range map[string][]byte{
		"root":             appendKey(nil, rootScope, "order-4711"),
		"scope":            appendKey(nil, subScope(shop, "Köln"), "order-4711"),
		"an-empty-name":    appendKey(nil, subScope(shop, ""), "k"),
		"a-long-name":      appendKey(nil, subScope(shop, fmt.Sprintf("%0300d", 1)), "k"),
		"number":           appendNumber(nil, rootScope, "orders", 0, 7),
		"number-in-scope":  appendNumber(nil, shop, "orders", 3, 300),
		"the-last-number":  appendNumber(nil, shop, "", math.MaxUint64, math.MaxUint64),
		"no-key":           shop,
		"many-empty-names": append([]byte{100}, make([]byte, 101)...),
	} {
		seeds = append(seeds, decoders.Seed{Name: name, Args: []any{b}})
	}
	decoders.Seeds(t, "FuzzParseKey", append(decoders.Damaged(seeds), decoders.Seed{Name: "longer-than-needed", Args: []any{[]byte{0x81, 0, 0x81, 0, 'a', 'k'}}}))
}
