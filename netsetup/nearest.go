package netsetup

import "strings"

// nearest returns the word that is closest to given, "" if none is close: more
// than a third of it, and more than two letters, would have to change.
func nearest(given string, words []string) string {
	best, least := "", max(2, len(given)/3)+1
	if len(given) > 64 {
		return ""
	}
	for _, w := range words {
		if strings.EqualFold(given, w) {
			return w
		}
		if d := distance(given, w); d < least && d < len(w) {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to be changed, added, left out or exchanged with
// their neighbour to make b of a.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differ(a[i-1], b[j-1]))
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// differ is the cost of putting b in the place of a.
func differ(a, b byte) int {
	if a == b {
		return 0
	}
	return 1
}

// didYouMean returns "; did you mean X?" or nothing.
func didYouMean(given string, words []string) string {
	if w := nearest(given, words); w != "" {
		return "; did you mean " + w + "?"
	}
	return ""
}
