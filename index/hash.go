package index

import "math"

// Hash is what the index knows of a key: XXH64, with the index's seed, over the keyspace's byte and the key.
//
//	63        52 51              31 30      9 8       0
//	┌───────────┬──────────────────┬─────────┬─────────┐
//	│ shard: 12 │ tag: 21          │ not used│ bucket:9│
//	└───────────┴──────────────────┴─────────┴─────────┘
//
// The three parts are disjoint, so that keys which share one are still spread by the others.
type Hash uint64

const (
	shardShift = 52
	tagShift   = 31
	tagBits    = 21
)

// Hash returns the hash of a key in a keyspace.
func (x *Index) Hash(space byte, key []byte) Hash { return Hash(xxh64(x.seed, space, key)) }

// address is where a hash may be found: in bucket first, or in second, of the one page that the tag leads to.
type address struct {
	shard         uint32
	tag           uint64
	first, second uint32
}

func (h Hash) address() address {
	tag := uint64(h) >> tagShift & (1<<tagBits - 1)
	first := uint32(h) % pageBuckets
	return address{uint32(shardOf[h>>shardShift]), tag, first, other(first, tag)}
}

// id is everything the table knows of the key: keys with the same id can't be told apart in it.
func (a address) id() uint32 { return uint32(a.tag)<<9 | a.first }

// Alike reports whether keys with these hashes could be taken for each other by the index, which finds the one where
// the other is. What is found where the index says, and is not alike, was not there when it was put into the index.
func (h Hash) Alike(k Hash) bool {
	a, b := h.address(), k.address()
	return a.shard == b.shard && a.tag == b.tag && (a.first == b.first || a.second == b.first)
}

// firstOf says which is the first of the top 12 bits of a hash that belong to a shard.
var firstOf = func() (first [shardCount]uint16) {
	for top := len(shardOf) - 1; top >= 0; top-- {
		first[shardOf[top]] = uint16(top)
	}
	return first
}()

// other returns the second bucket of an entry whose first is given, and the first when the second is given, so that
// an entry can change its bucket without its key being read. The two always differ: the distance is odd.
func other(bucket uint32, tag uint64) uint32 {
	return bucket ^ (uint32(tag)*0x9E3779B1>>23 | 1)
}

// shardOf says which shard the top 12 bits of a hash belong to. The last shard gets twice as many keys as the first,
// and those between 2^(1/128) more than the one before. With equal shares all pages fill up, and split, at the same
// number of keys, and the memory a key swings by a factor of two; like this it is always some pages' turn, and the
// memory a key stays level.
var shardOf = func() (of [1 << 12]uint8) {
	step := math.Pow(2, 1.0/shardCount)
	sum := 1 / (step - 1) // of step^i for all shards
	end, next := 0.0, 0
	for shard := range shardCount {
		end += math.Pow(step, float64(shard)) / sum
		for ; next < int(math.Round(end*float64(len(of)))); next++ {
			of[next] = uint8(shard)
		}
	}
	return of
}()
