package oncehttp

import (
	"bytes"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every problem's type is a heading of the page that it links to, and a row of its table.
func TestEveryProblemIsExplained(t *testing.T) {
	page, err := os.ReadFile("../docs/HTTP.md")
	require.NoError(t, err)
	kinds := map[string]bool{}
	for _, file := range []string{"problem.go", "middleware.go"} {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`\bkind(?:: |, p\.title = )"([a-z-]+)"`).FindAllSubmatch(source, -1) {
			kinds[string(m[1])] = true
		}
	}
	require.Len(t, kinds, 15)
	for kind := range kinds {
		require.Contains(t, string(page), "\n### "+kind+"\n")
		require.Contains(t, string(page), "["+kind+"](#"+kind+")")
	}
	require.Equal(t, len(kinds), strings.Count(string(page), "\n### "))
}

// The example of docs/FORMAT.md is the one that the encoder's test has.
func TestTheFormatsExample(t *testing.T) {
	page, err := os.ReadFile("../docs/FORMAT.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(page), "## A recorded response")
	require.True(t, ok)
	section = strings.Split(section, "```")[3]
	var digits bytes.Buffer
	for line := range strings.Lines(section) {
		for _, field := range strings.Fields(line[:min(len(line), 34)]) {
			digits.WriteString(field)
		}
	}
	b, err := hex.DecodeString(digits.String())
	require.NoError(t, err)
	require.Equal(t, recordedExample, b)
}
