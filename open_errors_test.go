package oncelog

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A path below which nothing can be made is an error of the system's, not a store that is damaged or missing.
func TestOpenWhereNothingCanBeMade(t *testing.T) {
	base := t.TempDir()
	nowhere := filepath.Join(base, "nowhere")
	require.NoError(t, os.Symlink(filepath.Join(base, "missing"), nowhere))
	_, err := Open(filepath.Join(nowhere, "store"), nil)
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, nowhere)
	require.NoDirExists(t, filepath.Join(base, "missing"))

	// A file where the log is to be, and no manifest.
	dir := filepath.Join(base, "store")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, walName), []byte("mine"), 0o600))
	_, err = Open(dir, nil)
	require.Error(t, err)
	require.ErrorContains(t, err, walName)
	require.NoFileExists(t, filepath.Join(dir, manifestName))
	b, err := os.ReadFile(filepath.Join(dir, walName))
	require.NoError(t, err)
	require.Equal(t, "mine", string(b))

	// The log can't be looked at: nobody knows whether it is missing.
	o, err := new(Options).withDefaults()
	require.NoError(t, err)
	_, err = load(filepath.Join(dir, walName), o, manifest{})
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrCorrupt)
}

// Somebody removes the store while this process waits for its lock. It must not make a new one, which would have
// forgotten everything.
func TestMustExistIsAskedAgainBehindTheLock(t *testing.T) {
	dir := t.TempDir()
	o, err := (&Options{MustExist: true}).withDefaults()
	require.NoError(t, err)
	_, err = openLocked(dir, o)
	require.ErrorIs(t, err, fs.ErrNotExist)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}
