// Package index is the room for one question: where does this key's record start? It answers from memory alone, for
// as many keys as fit there, at about 14 bytes a key whatever a key's length, and without the garbage collector
// having anything to walk.
//
// # A slot and a bucket
//
// The index does not hold keys. It holds eight bytes of each: part of its hash, and where its record starts.
//
//	63   62    61            41 40        25 24          0
//	┌────┬─────┬───────────────┬────────────┬─────────────┐
//	│meta│guest│ tag: 21       │ segment: 16│ offset: 25  │   a slot
//	└────┴─────┴───────────────┴────────────┴─────────────┘
//	┌──────┬──────┬──────┬──────┬──────┬──────┬──────┬──────┐
//	│ slot │ slot │ slot │ slot │ slot │ slot │ slot │ slot │   a bucket: 64 bytes, one cache line
//	└──────┴──────┴──────┴──────┴──────┴──────┴──────┴──────┘
//	512 buckets: a page, 32 KiB. Pages split as keys come. 128 shards, each a directory of pages.
//
// So what Lookup returns is a candidate. The caller reads the record there and compares the whole key; if it is
// another's, the key it asked for is absent, since of keys that the table can't tell apart all but one are kept
// elsewhere (see "The overflow map"). A key that is present is never missed, and never answered with another's
// location. An absent one meets a stranger about once in 10 000 look-ups at 10 million keys.
//
// # Why two buckets
//
// With one bucket a key, the fullest of 512 overflows before the page is half full. With two, the page can be filled
// to 85%, where it is split, and further. The second is the first at an odd distance that follows from the tag, so
// an entry can change from one to the other, which makes room for a third, and nobody needs to read its key for
// that. The guest bit says that an entry is in its second. To keep a miss from reading two cache lines, the meta
// bits of a bucket tell at which distances it has entries elsewhere; page.go has the details.
//
// # How it grows
//
// A full page is split in two by the next bit of the tag, which is in the slot: no record is read, no hash is
// computed, no second table is built, and what one insertion has to wait for is 32 KiB, not the table. Ten splits
// deep, with 500 million slots, 11 bits of the tag and the guest bit still tell the entries of a page apart.
//
// Shards do not get equal shares of the keys: the last gets twice as many as the first, with even steps between.
// Otherwise all pages would be full at the same size of the index, all split there, and the bytes a key would swing
// between 9 and 19. As it is, they stay between 13 and 17 from a quarter of a million keys on.
//
// Memory is mapped outside of the Go heap, in pieces of 256 KiB, later in huge pages, and goes back to the system
// when the Index is collected. On systems other than Linux and macOS it is taken from the Go heap.
//
// # Who waits for whom
//
// Readers wait for nobody. They look without a lock, and look again if an entry changed its place meanwhile, which
// the shard's counter of moves tells. Writers hold the shard's mutex, while they touch two buckets or a few, or split
// one page. Insert, Replace and Remove of one key are put in order by the caller; shard.go has the protocol.
//
// # The overflow map
//
// Two keys may have the same bucket and tag in the same page. By chance that happens to 4 keys in 100 000 at 10
// million. By intent it happens as often as somebody likes: families of keys can be made whose XXH64 is the same
// under every seed. The key that comes later goes, with all its bytes, to a plain Go map, whose hash nobody can aim
// at, and its bucket is flagged. Look-ups in a flagged bucket ask the map first. When the map has no key of the
// bucket any more, the flag goes. Keys go there too when both their buckets are full and splitting the page would
// not help. The map takes about a million keys; from there Full and Insert say ErrFull.
//
// This package makes no compatibility promise.
package index
