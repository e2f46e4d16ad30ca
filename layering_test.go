package oncelog

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rooms says which of our packages each may import. An edge that is not here is a design decision: make it in the
// doc.go of both rooms first.
var rooms = map[string][]string{
	"record":            {},
	"wal":               {},
	"index":             {"record"},
	"receiver":          {"record"},
	"snapshot":          {"record", "wal"},
	"compaction":        {"record", "wal"},
	"":                  {"record", "wal", "index", "snapshot", "compaction", "receiver"},
	"cmd/oncelog":       {"*"},
	"bench":             {"*"},
	"bench/limit":       {},
	"fuzz":              {"*"},
	"fuzz/trace":        {},
	"fuzz/crash":        {"*"},
	"fuzz/pattern":      {"*"},
	"fuzz/calls":        {"*"},
	"fuzz/rot":          {"*"},
	"fuzz/owners":       {"*"},
	"fuzz/memory":       {"*"},
	"fuzz/defences":     {"*"},
	"fuzz/decoders":     {},
	"fuzz/coverage":     {},
	"examples/consumer": {"receiver"},
	"examples/ledger":   {"receiver"},
	"examples/saga":     {"receiver"},
	"examples/payments": {"oncehttp", "receiver"},

	"receiver/receivertest": {"receiver"},
	"oncetest":              {"receiver"},
	"oncehttp":              {"receiver"},
}

// dependencies are those of the core module, and there are no others.
var dependencies = []string{
	"github.com/tidwall/wal", "github.com/cespare/xxhash/v2", "github.com/stretchr/testify", "pgregory.net/rapid",
}

func TestImportsFollowTheDesign(t *testing.T) {
	const module = "github.com/oncelog/oncelog"
	out, err := exec.Command("go", "list", "-f",
		`{{.ImportPath}}{{range .Imports}} {{.}}{{end}}{{range .TestImports}} test:{{.}}{{end}}{{range .XTestImports}} test:{{.}}{{end}}`, "./...").Output()
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Greater(t, len(lines), 3)
	for _, line := range lines {
		fields := strings.Fields(line)
		room := strings.TrimPrefix(strings.TrimPrefix(fields[0], module), "/")
		may, known := rooms[room]
		require.True(t, known, "package %q has no place in the design", room)
		for _, imp := range fields[1:] {
			path, inTest := strings.CutPrefix(imp, "test:")
			ours, ok := strings.CutPrefix(path, module)
			ours = strings.TrimPrefix(ours, "/")
			switch {
			case ok && inTest: // tests of a room may look through its neighbours
			case ok:
				require.True(t, slices.Contains(may, ours) || slices.Contains(may, "*"), "%q must not import %q", room, ours)
			case strings.Contains(strings.Split(path, "/")[0], "."):
				require.True(t, slices.ContainsFunc(dependencies, func(d string) bool {
					return path == d || strings.HasPrefix(path, d+"/")
				}), "%q imports %q, which the core module does not depend on", room, path)
			}
		}
	}
}

func TestNoRoomWithoutAPurpose(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.Name}} {{.Doc}}`, "./...").Output()
	require.NoError(t, err)
	for line := range strings.Lines(string(out)) {
		pkg, doc, _ := strings.Cut(strings.TrimSpace(line), " ")
		require.NotContains(t, []string{"util", "utils", "common", "types", "helpers"}, pkg)
		require.NotEmpty(t, doc, "package %s has no doc", pkg)
	}
}
