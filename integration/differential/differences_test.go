package differential

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// differences are the rows of docs/differences.md that are for this test: "| cases | what | reference | nsinit | why |",
// the first four in backticks, with * for anything. What is "OBJECT: ATTRIBUTE", and may start with "PHASE, ".
type differences struct {
	rows []*row
	mu   sync.Mutex
	done map[string]bool // names of the cases that ran
}

type row struct {
	line                           int
	cases, what, reference, nsinit string
	why                            string
	hits                           atomic.Int64
}

func (r *row) String() string {
	return fmt.Sprintf("line %d: %s | %s | %s | %s", r.line, r.cases, r.what, r.reference, r.nsinit)
}

func readDifferences(path string) (*differences, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	book := &differences{done: map[string]bool{}}
	for i, line := range strings.Split(string(b), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) != 5 {
			continue
		}
		r := &row{line: i + 1, why: strings.TrimSpace(cells[4])}
		for j, cell := range []*string{&r.cases, &r.what, &r.reference, &r.nsinit} {
			*cell = strings.Trim(strings.TrimSpace(cells[j]), "`")
		}
		if r.why == "" {
			return nil, fmt.Errorf("%s: line %d: no reason", path, i+1)
		}
		book.rows = append(book.rows, r)
	}
	return book, nil
}

// find returns the reason for which a difference of a case stands, "" if none.
func (b *differences) find(name string, d difference) (why string) {
	left := map[string]bool{}
	for _, p := range d.phases {
		left[p] = true
	}
	for _, r := range b.rows {
		if !like(r.cases, name) || !like(r.reference, d.reference) || !like(r.nsinit, d.nsinit) {
			continue
		}
		what := fmt.Sprintf("%s: %s", d.object, d.attr)
		for _, p := range d.phases {
			if like(r.what, what) || like(r.what, p+", "+what) {
				delete(left, p)
				r.hits.Add(1)
				why = r.why
			}
		}
	}
	if len(left) > 0 {
		return ""
	}
	return why
}

func (b *differences) ran(tc *testCase) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[tc.name] = true
}

// stale returns the rows that nothing needed, of those for cases that ran here. A row that is also for cases which every
// kernel can do is judged by those.
func (b *differences) stale(cases []*testCase) (rows []*row) {
	for _, r := range b.rows {
		everywhere, tried := false, false
		for _, tc := range cases {
			if like(r.cases, tc.name) {
				everywhere = everywhere || tc.everywhere()
				tried = tried || b.done[tc.name]
			}
		}
		if r.hits.Load() == 0 && (tried && everywhere != emulated || !tried && !everywhere && emulated) {
			rows = append(rows, r)
		}
	}
	return rows
}

// like compares text with a pattern in which * stands for anything.
func like(pattern, text string) bool {
	first, rest, more := strings.Cut(pattern, "*")
	text, ok := strings.CutPrefix(text, first)
	if !ok || !more {
		return ok && text == ""
	}
	if rest == "" {
		return true
	}
	for i := range len(text) + 1 {
		if like(rest, text[i:]) {
			return true
		}
	}
	return false
}

func runFilter() string {
	return flag.Lookup("test.run").Value.String() +
		flag.Lookup("test.skip").Value.String()
}
