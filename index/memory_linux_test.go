package index

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A table that outgrows the first mapping is advised to lie in huge pages altogether; one of a few keys is not, and one
// that is loaded and known to be large begins with them.
func TestLargeTablesLieInHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("the kernel has no huge pages: ", err)
	}
	m := newMemory()
	defer m.release()
	for range firstMapping / pageSize {
		_, err := m.page()
		require.NoError(t, err)
	}
	require.Len(t, m.mappings, 1)
	require.False(t, huge(t, m.mappings[0]))
	last, err := m.page()
	require.NoError(t, err)
	require.True(t, huge(t, m.mappings[0]))
	require.True(t, huge(t, last[0][:]))

	known := NewLoader(1, firstMapping/pageSize+1).x
	page, err := known.memory.page()
	require.NoError(t, err)
	require.True(t, huge(t, page[0][:]))
	require.EqualValues(t, laterPiece, known.memory.bytes.Load())
	require.Len(t, known.memory.mappings[0], laterMapping)

	few := NewLoader(1, firstMapping/pageSize).x
	_, err = few.memory.page()
	require.NoError(t, err)
	require.EqualValues(t, firstPiece, few.memory.bytes.Load())
}

// Two who load pages at a time don't write to the same huge page, and what they leave of theirs is used for the pages
// that come later.
func TestLoadersShareNoHugePage(t *testing.T) {
	l := NewLoader(1, firstMapping/pageSize+1)
	m := l.x.memory
	piece := func(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) / laterPiece }
	var outer, inner, after uintptr
	require.NoError(t, l.Page(PageHead{Shard: 0}, func(b []byte) error {
		outer = piece(b)
		return l.Page(PageHead{Shard: 1}, func(b []byte) error { inner = piece(b); return nil })
	}))
	require.NotEqual(t, outer, inner)
	for shard := uint8(2); shard < 100; shard++ {
		require.NoError(t, l.Page(PageHead{Shard: shard}, func(b []byte) error { after = piece(b); return nil }))
		require.Contains(t, []uintptr{outer, inner}, after)
	}
	x, err := l.Index()
	require.NoError(t, err)
	defer m.release()
	pages := 2*laterPiece/pageSize - 100
	for range pages {
		_, err := x.memory.page()
		require.NoError(t, err)
	}
	require.EqualValues(t, 2*laterPiece, m.bytes.Load())
	require.EqualValues(t, 2*laterPiece/pageSize, m.pages.Load())
	_, err = m.page()
	require.NoError(t, err)
	require.EqualValues(t, 3*laterPiece, m.bytes.Load())
}

// huge reports whether huge pages were asked for where b begins.
func huge[T any](t *testing.T, b []T) bool {
	t.Helper()
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	f, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer f.Close()
	inside := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && inside {
			return slices.Contains(strings.Fields(flags), "hg")
		}
	}
	require.Fail(t, "the address is not mapped")
	return false
}
