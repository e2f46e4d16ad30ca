package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// figure is a row's number in the demonstration's table.
func figure(t *testing.T, table, row string) int {
	m := regexp.MustCompile(`(?m)^` + row + ` +(\d+)`).FindStringSubmatch(table)
	require.NotNil(t, m, table)
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

func TestDemo(t *testing.T) {
	// As a process: the service that it starts is the same program again.
	out, err := process(t, "demo", "--requests", "500", "--crashes", "7").Output()
	require.NoError(t, err)
	table := string(out)
	require.Equal(t, 500, figure(t, table, "payments"))
	require.Equal(t, 500, figure(t, table, "executed"))
	require.Equal(t, 7, figure(t, table, "kills"))
	require.Greater(t, figure(t, table, "deliveries"), 500)
	require.Greater(t, figure(t, table, "replayed"), 100)
	total := regexp.MustCompile(`(?m)^ledger total +(\S+) +expected (\S+)$`).FindStringSubmatch(table)
	require.NotNil(t, total)
	require.Equal(t, total[1], total[2])
	between := regexp.MustCompile(`; (\d+) of them between`).FindStringSubmatch(table)
	require.NotNil(t, between)
	require.NotEqual(t, "0", between[1], "no kill hit the moment that matters")
}

func TestDemoRefusesNonsense(t *testing.T) {
	for _, args := range [][]string{
		{"--requests", "0"}, {"--requests", "x"}, {"--crashes", "-1"}, {"--requests", "3", "--crashes", "4"}, {"DIR"},
	} {
		failsWith(t, oncelogRun("", append([]string{"demo"}, args...)...), exitUsage)
	}
	failsWith(t, oncelogRun("", demoService), exitUsage)
	failsWith(t, oncelogRun("nonsense\n", demoService, filepath.Join(t.TempDir(), "d")), exitFailed, "not a payment")
}

func TestDemoSaysWhatIsWrong(t *testing.T) {
	right := func() *demonstration {
		return &demonstration{payments: 2, amount: []int64{100, 50}, total: 150, executed: 2}
	}
	require.NoError(t, right().verdict())
	d := right()
	d.total++
	require.EqualError(t, d.verdict(), "the ledger holds 1.51 instead of 1.50")
	d = right()
	d.executed++
	require.Error(t, d.verdict())
	d = right()
	d.missing++
	require.Error(t, d.verdict())
}

func TestDemoWhoseServiceFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	d := &demonstration{payments: 3, dir: filepath.Join(file, "store"), service: func(dir string) (*exec.Cmd, error) {
		return process(t, demoService, dir), nil
	}}
	err := d.run(t.Context())
	require.ErrorContains(t, err, "service failed")
	require.ErrorContains(t, err, "not a directory")
	d.service = func(string) (*exec.Cmd, error) { return exec.Command(filepath.Join(t.TempDir(), "nothing")), nil }
	require.ErrorContains(t, d.run(t.Context()), "does not start")
}
