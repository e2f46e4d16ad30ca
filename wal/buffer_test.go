package wal

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	tidwall "github.com/tidwall/wal"
)

// A newer library that is built otherwise would only be slower; this says so.
func TestTheLibraryWritesThroughTheBufferPutInPlace(t *testing.T) {
	l, err := tidwall.Open(t.TempDir(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	p := entryBuffer(l)
	require.NotNil(t, p)
	mine := make([]byte, 100)
	*p = mine[:0]
	require.NoError(t, l.Write(1, []byte("entry")))
	require.Same(t, unsafe.SliceData(mine), unsafe.SliceData(*p))
	require.Equal(t, "\x05entry", string(mine[:6]))
}
