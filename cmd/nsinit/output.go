package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// maxQuoted is how much of a user's value an error repeats, in bytes.
const maxQuoted = 64

// quote writes a value so that it can't be taken for anything else: in quotes,
// control characters escaped, and cut.
func quote(s string) string { return strconv.Quote(cut(s)) + more(s) }

// bare is quote without the quotes, for the names of flags.
func bare(s string) string {
	q := strconv.Quote(cut(s))
	return q[1:len(q)-1] + more(s)
}

func more(s string) string {
	if len(s) > maxQuoted {
		return "..."
	}
	return ""
}

// cut returns the first bytes of s, ending with a whole character.
func cut(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	end := maxQuoted
	for end > maxQuoted-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// oneLine makes text that is safe on a terminal and has no line ends: several
// faults, each on its line, are separated by semicolons.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.Trim(s, "\n"), "\n", "; ")
	var b strings.Builder
	for _, r := range s { // a byte that is no UTF-8 becomes U+FFFD
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRune(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// fail prints err in one line and returns code.
func (a *app) fail(code int, err error) int {
	if a.json {
		_ = json.NewEncoder(a.stderr).Encode(struct {
			Error    string `json:"error"`
			ExitCode int    `json:"exitCode"`
		}{oneLine(err.Error()), code})
		return code
	}
	fmt.Fprintf(a.stderr, "nsinit: %s\n", oneLine(err.Error()))
	return code
}

// printJSON prints v on stdout.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// print prints text on stdout.
func (a *app) print(text string) error {
	_, err := a.stdout.Write([]byte(text))
	return err
}

// colour says whether stdout is a terminal of somebody who wants colour
// (https://no-color.org).
func (a *app) colour() bool {
	if v, _ := a.lookupEnv("NO_COLOR"); v != "" {
		return false
	}
	if v, _ := a.lookupEnv("TERM"); v == "dumb" {
		return false
	}
	f, ok := a.stdout.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// table aligns rows in columns, two spaces apart; paint, which may be nil, gives
// a cell its colour after its width is known.
func table(rows [][]string, paint func(row, column int, cell string) string) string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for r, row := range rows {
		for i, cell := range row {
			pad := widths[i] - utf8.RuneCountInString(cell) + 2
			if paint != nil {
				cell = paint(r, i, cell)
			}
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", pad))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
