package main

import (
	"bufio"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const module = "github.com/oncelog/oncelog/"

// sometimes begins the reason of a branch that the rungs reach on some days, as their threads fall: reaching it is no
// fault, and neither is missing it.
const sometimes = "sometimes: "

// watched are the files whose branches count, and directories.
var watched = []string{
	"wal/scan.go", "wal/recover.go", "wal/front.go", "replay.go", "open.go", "snapshot/read.go", "snapshot.go", "compaction/", "house.go",
	"move.go",
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	dir := flag.String("measure", "", "run the tests first, of the packages named or of all, and keep what they reach in this directory")
	flag.Parse()
	profiles := flag.Args()
	if *dir != "" {
		profile, err := measure(*dir, profiles)
		if err != nil {
			return err
		}
		profiles = []string{profile}
	}
	if len(profiles) == 0 {
		return fmt.Errorf("usage: coverage PROFILE..., or coverage -measure DIR [PACKAGE...]")
	}
	gaps, statements, reached, err := uncovered(profiles)
	if err != nil {
		return err
	}
	explained, err := explanations("fuzz/coverage/gaps.txt")
	if err != nil {
		return err
	}
	fmt.Printf("%d of %d statements reached; %d branches not, %d explained\n", reached, statements, len(gaps), len(explained))
	failed, stale := 0, 0
	for _, gap := range slices.Sorted(maps.Keys(gaps)) {
		if explained[gap] == "" {
			fmt.Printf("not reached: %s\n", gap)
			failed++
		}
	}
	for _, gap := range slices.Sorted(maps.Keys(explained)) {
		if !gaps[gap] && !strings.HasPrefix(explained[gap], sometimes) {
			fmt.Printf("explained, and reached or gone: %s\n", gap)
			stale++
		}
	}
	if failed > 0 || stale > 0 {
		return fmt.Errorf("fuzz/coverage/gaps.txt: %d branches are not reached and not explained, %d explanations are not needed any more", failed, stale)
	}
	return nil
}

// uncovered merges profiles and returns the branches that none reached, and how many statements there are.
func uncovered(profiles []string) (gaps map[string]bool, statements, reached int, err error) {
	type block struct {
		file       string
		line, size int
	}
	counts := map[string]int{}
	blocks := map[string]block{}
	for _, path := range profiles {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, 0, 0, err
		}
		for line := range strings.Lines(string(b)) {
			// file:line.column,line.column statements count
			at, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
			file, span, inFile := strings.Cut(strings.TrimPrefix(at, module), ":")
			if !ok || !inFile || file == "mode" || !isWatched(file) {
				continue
			}
			var bl block
			var count int
			bl.file = file
			if _, err := fmt.Sscanf(span, "%d.", &bl.line); err != nil {
				return nil, 0, 0, fmt.Errorf("%s: %q: %w", path, line, err)
			}
			if _, err := fmt.Sscan(rest, &bl.size, &count); err != nil {
				return nil, 0, 0, fmt.Errorf("%s: %q: %w", path, line, err)
			}
			blocks[at] = bl
			counts[at] += count
		}
	}
	gaps = map[string]bool{}
	sources := map[string]*source{}
	for at, bl := range blocks {
		statements += bl.size
		if counts[at] > 0 {
			reached += bl.size
			continue
		}
		s := sources[bl.file]
		if s == nil {
			if s, err = read(bl.file); err != nil {
				return nil, 0, 0, err
			}
			sources[bl.file] = s
		}
		gaps[strings.Join([]string{bl.file, s.function(bl.line), s.text(bl.line)}, "\t")] = true
	}
	if statements == 0 {
		return nil, 0, 0, fmt.Errorf("the profiles know nothing of %v", watched)
	}
	return gaps, statements, reached, nil
}

func isWatched(file string) bool {
	return slices.ContainsFunc(watched, func(w string) bool {
		return file == w || strings.HasSuffix(w, "/") && strings.HasPrefix(file, w)
	})
}

// source is a file, to say of a line what it says and which function it is in.
type source struct {
	lines []string
	set   *token.FileSet
	file  *ast.File
}

func read(path string) (*source, error) {
	b, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		return nil, err
	}
	s := &source{lines: strings.Split(string(b), "\n"), set: token.NewFileSet()}
	s.file, err = parser.ParseFile(s.set, path, b, parser.SkipObjectResolution)
	return s, err
}

func (s *source) function(line int) string {
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && s.set.Position(f.Pos()).Line <= line && line <= s.set.Position(f.End()).Line {
			return f.Name.Name
		}
	}
	return "-"
}

func (s *source) text(line int) string {
	text := strings.TrimSpace(s.lines[line-1])
	if line > 1 && (text == "if err != nil {" || text == "if !ok {") {
		text = strings.TrimSpace(s.lines[line-2]) + " " + text
	}
	return text
}

// explanations reads the committed list: the reasons by gap.
func explanations(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := map[string]string{}
	in := bufio.NewScanner(f)
	for in.Scan() {
		line := in.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(line, "\t")
		if len(parts) != 4 || parts[3] == "" {
			return nil, fmt.Errorf("%s: not file, function, line and reason: %q", path, line)
		}
		all[strings.Join(parts[:3], "\t")] = parts[3]
	}
	return all, in.Err()
}
