package netsetup

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A strict reader of JSON. encoding/json takes the last of two equal keys, a key
// in any case ("ſ" for "s", too), puts U+FFFD for bytes that are no UTF-8 and for
// half a surrogate pair, and keeps U+0000, where netlink and mount cut a string.
// In a file that says how a container is connected each of these is a fault.

const (
	maxDepth  = 1000    // of objects and arrays
	maxValues = 100_000 // in one file
)

// A jsonValue is one value of a file, with its place there.
type jsonValue struct {
	kind    byte // { [ " 0 t f n: the byte that it starts with, 0 for numbers
	pos     int  // of its first byte
	end     int  // behind its last byte
	text    string
	members []jsonMember
	items   []jsonValue
}

type jsonMember struct {
	key   string
	pos   int
	value jsonValue
}

// get returns the member called key.
func (v *jsonValue) get(key string) (*jsonValue, bool) {
	for i := range v.members {
		if v.members[i].key == key {
			return &v.members[i].value, true
		}
	}
	return nil, false
}

// keys returns the names of the members.
func (v *jsonValue) keys() []string {
	var keys []string
	for _, m := range v.members {
		keys = append(keys, m.key)
	}
	return keys
}

// what names the kind of v as a person does.
func (v *jsonValue) what() string {
	switch v.kind {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 'n':
		return "null"
	}
	return "true or false"
}

// A jsonPath is the way from the top of a file to a value, written down only
// for errors.
type jsonPath struct {
	up    *jsonPath
	key   string
	index int
}

func (p *jsonPath) String() string {
	switch {
	case p == nil:
		return ""
	case p.key == "":
		return p.up.String() + "[" + strconv.Itoa(p.index) + "]"
	case p.up == nil:
		return p.key
	}
	return p.up.String() + "." + p.key
}

type jsonReader struct {
	src    []byte
	pos    int
	depth  int
	values int
}

// readJSON reads the one value that src holds.
func readJSON(src []byte) (jsonValue, error) {
	switch {
	case bytes.HasPrefix(src, []byte("\xef\xbb\xbf")):
		return jsonValue{}, fmt.Errorf("starts with a byte order mark; save it as UTF-8 without one")
	case bytes.HasPrefix(src, []byte("\xff\xfe")), bytes.HasPrefix(src, []byte("\xfe\xff")):
		return jsonValue{}, fmt.Errorf("UTF-16; save it as UTF-8")
	case len(bytes.TrimSpace(src)) == 0:
		return jsonValue{}, fmt.Errorf("empty")
	}
	r := jsonReader{src: src}
	v, err := r.value(nil)
	if err != nil {
		return jsonValue{}, err
	}
	if r.skipSpace(); r.pos < len(src) {
		return jsonValue{}, r.fault(r.pos, nil, "text behind the end; remove it")
	}
	return v, nil
}

// fault describes what is wrong at pos, with its line and column, counted in bytes.
func (r *jsonReader) fault(pos int, path *jsonPath, format string, args ...any) error {
	pos = min(pos, len(r.src))
	column := pos - bytes.LastIndexByte(r.src[:pos], '\n')
	where := strconv.Itoa(lineOf(r.src, pos)) + ":" + strconv.Itoa(column)
	if path != nil {
		where += ": " + quotedPath(path)
	}
	return fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...))
}

func lineOf(src []byte, pos int) int { return bytes.Count(src[:pos], []byte{'\n'}) + 1 }

// quotedPath returns path with what a terminal would act on escaped.
func quotedPath(path *jsonPath) string {
	s := strconv.Quote(path.String())
	return s[1 : len(s)-1]
}

func (r *jsonReader) skipSpace() {
	for r.pos < len(r.src) {
		switch r.src[r.pos] {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return
		}
	}
}

// next returns the byte at hand, 0 at the end.
func (r *jsonReader) next() byte {
	if r.skipSpace(); r.pos < len(r.src) {
		return r.src[r.pos]
	}
	return 0
}

func (r *jsonReader) value(path *jsonPath) (jsonValue, error) {
	c := r.next()
	v := jsonValue{kind: c, pos: r.pos}
	if r.values++; r.values > maxValues {
		return v, r.fault(r.pos, nil, "more than %d values; no network needs as many", maxValues)
	}
	var err error
	switch c {
	case '{', '[':
		if r.depth++; r.depth > maxDepth {
			return v, r.fault(r.pos, nil, "nested more than %d deep", maxDepth)
		}
		if c == '{' {
			v.members, err = r.object(path)
		} else {
			v.items, err = r.array(path)
		}
		r.depth--
	case '"':
		v.text, err = r.string(path)
	case 't', 'f', 'n':
		err = r.literal(path, c)
	default:
		v.kind = '0'
		v.text, err = r.number(path)
	}
	v.end = r.pos
	return v, err
}

func (r *jsonReader) literal(path *jsonPath, first byte) error {
	word := "null"
	switch first {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	}
	if !bytes.HasPrefix(r.src[r.pos:], []byte(word)) {
		return r.fault(r.pos, path, "not a value; strings stand in quotes")
	}
	r.pos += len(word)
	return nil
}

func (r *jsonReader) object(path *jsonPath) ([]jsonMember, error) {
	var members []jsonMember
	first := make(map[string]int)
	r.pos++
	for r.next() != '}' {
		if len(members) > 0 && !r.take(',') {
			return nil, r.fault(r.pos, path, "a comma or } is missing")
		}
		if r.next() != '"' {
			return nil, r.fault(r.pos, path, "a key in quotes is missing")
		}
		m := jsonMember{pos: r.pos}
		var err error
		if m.key, err = r.string(path); err != nil {
			return nil, err
		}
		here := &jsonPath{up: path, key: m.key}
		if at, twice := first[m.key]; twice {
			return nil, r.fault(m.pos, here, "given twice, first on line %d; remove one", lineOf(r.src, at))
		}
		first[m.key] = m.pos
		if !r.take(':') {
			return nil, r.fault(r.pos, here, "a colon is missing behind the key")
		}
		if m.value, err = r.value(here); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	r.pos++
	return members, nil
}

func (r *jsonReader) array(path *jsonPath) ([]jsonValue, error) {
	var items []jsonValue
	r.pos++
	for r.next() != ']' {
		if len(items) > 0 && !r.take(',') {
			return nil, r.fault(r.pos, path, "a comma or ] is missing")
		}
		v, err := r.value(&jsonPath{up: path, index: len(items)})
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	r.pos++
	return items, nil
}

// take goes past c if c is next.
func (r *jsonReader) take(c byte) bool {
	if r.next() != c || c == 0 {
		return false
	}
	r.pos++
	return true
}

// number reads a number as RFC 8259 has it.
func (r *jsonReader) number(path *jsonPath) (string, error) {
	start := r.pos
	for r.pos < len(r.src) && strings.IndexByte("+-.eE0123456789", r.src[r.pos]) >= 0 {
		r.pos++
	}
	text := string(r.src[start:r.pos])
	if !isNumber(text) {
		return "", r.fault(start, path, "not a value")
	}
	return text, nil
}

func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	whole, s := digits(s)
	if whole == "" || len(whole) > 1 && whole[0] == '0' {
		return false
	}
	if frac, ok := strings.CutPrefix(s, "."); ok {
		var d string
		if d, s = digits(frac); d == "" {
			return false
		}
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		d, rest := digits(s)
		return d != "" && rest == ""
	}
	return s == ""
}

func digits(s string) (number, rest string) {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n], s[n:]
}

// string reads a string and decodes it.
func (r *jsonReader) string(path *jsonPath) (string, error) {
	start := r.pos
	var out []byte
	for r.pos++; ; {
		if r.pos >= len(r.src) {
			return "", r.fault(start, path, "the string has no end")
		}
		c := r.src[r.pos]
		switch {
		case c == '"':
			r.pos++
			return string(out), nil
		case c < 0x20:
			return "", r.fault(r.pos, path, "control character %#02x in a string", c)
		case c == '\\':
			ch, err := r.escape(path)
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, ch)
		default:
			ch, n := utf8.DecodeRune(r.src[r.pos:])
			if ch == utf8.RuneError && n <= 1 {
				return "", r.fault(r.pos, path, "byte %d of the file is no UTF-8; save it as UTF-8", r.pos)
			}
			out = append(out, r.src[r.pos:r.pos+n]...)
			r.pos += n
		}
	}
}

// escape reads what follows a backslash.
func (r *jsonReader) escape(path *jsonPath) (rune, error) {
	start := r.pos
	if r.pos++; r.pos >= len(r.src) {
		return 0, r.fault(start, path, "the string has no end")
	}
	c := r.src[r.pos]
	r.pos++
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	if c != 'u' {
		return 0, r.fault(start, path, "unknown escape; a backslash is written twice")
	}
	ch := r.hex4()
	if utf16.IsSurrogate(ch) && bytes.HasPrefix(r.src[r.pos:], []byte(`\u`)) {
		r.pos += 2
		ch = utf16.DecodeRune(ch, r.hex4())
		if ch == utf8.RuneError {
			ch = 0xd800
		}
	}
	switch {
	case ch < 0:
		return 0, r.fault(start, path, "four hexadecimal digits are missing behind \\u")
	case ch == 0:
		return 0, r.fault(start, path, "\\u0000 in a string, where the kernel would cut it; remove it")
	case utf16.IsSurrogate(ch):
		return 0, r.fault(start, path, "half a surrogate pair; write the character itself")
	}
	return ch, nil
}

// hex4 reads four hexadecimal digits, -1 if there are none.
func (r *jsonReader) hex4() rune {
	if r.pos+4 > len(r.src) {
		return -1
	}
	n, err := strconv.ParseUint(string(r.src[r.pos:r.pos+4]), 16, 16)
	if err != nil {
		return -1
	}
	r.pos += 4
	return rune(n)
}
