package differential

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestCases(t *testing.T) {
	cases, err := loadCases()
	if err != nil {
		t.Fatal(err)
	}
	book, err := readDifferences("../../docs/differences.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("cases", func(t *testing.T) {
		for _, tc := range cases {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				tc.compare(t, book)
			})
		}
	})
	if f := runFilter(); f == "" && !*same {
		for _, stale := range book.stale(cases) {
			t.Errorf("docs/differences.md: no case differs so any more; take it out: %s", stale)
		}
	}
}

// compare plays a case with both sets of plugins.
func (tc *testCase) compare(t *testing.T, book *differences) {
	if reason := tc.lacking(); reason != "" {
		t.Skip(reason)
	}
	if emulated && tc.everywhere() {
		t.Skip("not for the emulated machine: every kernel can do it")
	}
	var want, plugin, run history
	t.Run("both", func(t *testing.T) {
		t.Run("reference", func(t *testing.T) { t.Parallel(); want = play(t, tc, referenceDir) })
		if strings.Contains(*ways, "plugin") {
			t.Run("nsinit", func(t *testing.T) { t.Parallel(); plugin = play(t, tc, nativeDir) })
		}
		if tc.runs() && !emulated && strings.Contains(*ways, "run") && !*same {
			t.Run("run", func(t *testing.T) { t.Parallel(); run = playRun(t, tc) })
		}
	})
	if t.Failed() {
		return
	}
	book.ran(tc)
	if plugin.facts != nil {
		tc.report(t, book, differ(want, plugin), want, plugin)
	}
	if run.facts != nil {
		want := want.asRun()
		tc.report(t, book, differ(want, run), want, run)
	}
}

// report fails t by what differs and isn't in the book.
func (tc *testCase) report(t *testing.T, book *differences, found []difference, want, got history) {
	t.Helper()
	var bad []string
	for _, d := range found {
		if why := book.find(tc.name, d); why == "" {
			bad = append(bad, d.String())
		} else if *listed {
			t.Logf("%s\n\tstands: %s", d, why)
		}
	}
	if len(bad) == 0 {
		return
	}
	for _, p := range moments() {
		if a, b := want.said[p], got.said[p]; a != b {
			bad = append(bad, fmt.Sprintf("(%s said: %s\n      nsinit said: %s)", p, a, b))
		}
	}
	t.Errorf("%d differences\n%s", len(bad), strings.Join(bad, "\n"))
}

// A difference is one fact in which the two differ, in some phases.
type difference struct {
	fact
	reference, nsinit string
	phases            []string
}

func (d difference) String() string {
	return fmt.Sprintf("[%s] %s: %s: %q, nsinit: %q", strings.Join(d.phases, ", "), d.object, d.attr, d.reference, d.nsinit)
}

// absent is the value of what isn't there.
const absent = "-"

// differ returns what differs, an object that only one side has as one difference. After a call that only one of them
// did, that is all: the rest follows from it. What both failed to do is compared under names of its own, since the
// reference plugins leave what they began for DEL.
func differ(want, got history) (all []difference) {
	index := map[string]int{}
	failed := false
	for _, p := range moments() {
		a, b := want.facts[p], got.facts[p]
		if a == nil || b == nil {
			continue
		}
		one, other := a.done(), b.done()
		starts := p == "ADD" || p == "run"
		failed = failed || starts && !one && !other
		if one != other {
			a, b = a.outcome(), b.outcome()
		}
		name := p
		if failed {
			name = "failed " + p
		}
		for _, d := range diffFacts(a, b) {
			key := fmt.Sprint(d.fact, d.reference, "\x00", d.nsinit)
			if i, ok := index[key]; ok {
				all[i].phases = append(all[i].phases, name)
				continue
			}
			index[key] = len(all)
			d.phases = []string{name}
			all = append(all, d)
		}
		if starts && one != other {
			break
		}
	}
	slices.SortStableFunc(all, func(x, y difference) int { return strings.Compare(x.object+" "+x.attr, y.object+" "+y.attr) })
	return all
}

// done says whether the call that led here succeeded.
func (f facts) done() bool {
	code, ok := f[outcomeCode]
	return !ok || code == "ok"
}

var outcomeCode = fact{"outcome", "code"}

func (f facts) outcome() facts { return facts{outcomeCode: f[outcomeCode]} }

func diffFacts(a, b facts) (all []difference) {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for k := range keys {
		x, y := value(a, k), value(b, k)
		if x == y {
			continue
		}
		whole := fact{k.object, ""}
		if k.attr != "" && value(a, whole) != value(b, whole) {
			continue // the object itself is only there once
		}
		all = append(all, difference{fact: k, reference: x, nsinit: y})
	}
	return all
}

func value(f facts, k fact) string {
	if v, ok := f[k]; ok {
		return v
	}
	return absent
}
