package netsetup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// systemdResolvers is where systemd-resolved keeps the servers behind its stub
// on 127.0.0.53.
const systemdResolvers = "/run/systemd/resolve/resolv.conf"

// hostResolvers is what a resolv.conf of the host says.
type hostResolvers struct {
	servers []netip.Addr
	search  []string
	options []string
}

// readHostResolvers reads path, or behindStub if path knows no server but
// systemd-resolved's stub.
func readHostResolvers(path, behindStub string) (hostResolvers, error) {
	content, err := readResolvConf(path)
	if err != nil {
		return hostResolvers{}, err
	}
	host := parseResolvConf(content)
	isStub := func(a netip.Addr) bool {
		return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
	}
	if len(host.servers) == 0 || slices.ContainsFunc(host.servers, func(a netip.Addr) bool { return !isStub(a) }) {
		return host, nil
	}
	content, err = readResolvConf(behindStub)
	if err != nil {
		return hostResolvers{}, err
	}
	if behind := parseResolvConf(content); len(behind.servers) > 0 {
		host.servers = behind.servers
	}
	return host, nil
}

// readResolvConf reads path; nothing if it isn't there, is a link that leads
// nowhere, or no file.
func readResolvConf(path string) (string, error) {
	const limit = 1 << 16
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), path == "":
		return "", nil
	case err != nil:
		return "", fmt.Errorf("resolvers: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	content, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return "", fmt.Errorf("resolvers: %w", err)
	}
	return string(content), nil
}

// parseResolvConf reads a resolv.conf as glibc does (res_vinit_1): a keyword at
// the start of the line and a blank behind it; the last domain or search counts;
// options add up; three servers. Lines that it can't read mean nothing to it.
func parseResolvConf(content string) hostResolvers {
	var r hostResolvers
	servers := 0
	for line := range strings.SplitSeq(content, "\n") {
		word, rest, ok := cutWord(line)
		if !ok {
			continue
		}
		switch word {
		case "nameserver":
			a, err := netip.ParseAddr(firstWord(rest))
			if err == nil && servers < maxServers {
				r.servers = append(r.servers, a.Unmap())
				servers++
			}
		case "domain":
			r.search = cleanWords(rest, 1)
		case "search":
			r.search = cleanWords(rest, -1)
		case "options":
			r.options = appendNew(r.options, cleanWords(rest, -1))
		}
	}
	return r
}

// cutWord cuts the keyword off. A line that starts with a blank or a comment has none.
func cutWord(line string) (word, rest string, ok bool) {
	i := strings.IndexAny(line, " \t")
	if i <= 0 || line[0] == '#' || line[0] == ';' {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

func firstWord(s string) string {
	if words := strings.Fields(s); len(words) > 0 {
		return words[0]
	}
	return ""
}

// cleanWords returns the first most words of s, all if most < 0, without those
// that no file of ours can hold.
func cleanWords(s string, most int) []string {
	var words []string
	for w := range strings.FieldsSeq(s) {
		if len(words) == most {
			break
		}
		if checkWord(w) == nil {
			words = append(words, w)
		}
	}
	return words
}

// checkWord refuses what would be more than one word of a line, or not UTF-8.
func checkWord(w string) error {
	if w == "" {
		return errors.New("empty")
	}
	for _, r := range w {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return fmt.Errorf("character %q is not allowed", r)
		}
	}
	return nil
}

// check says what in d no resolver takes. where names who said it.
func (d DNS) check(where string) error {
	var faults []error
	if len(d.Nameservers) > maxServers {
		faults = append(faults, fmt.Errorf("%s: %d servers; a resolver reads %d", where, len(d.Nameservers), maxServers))
	}
	for _, s := range d.Nameservers {
		if _, err := netip.ParseAddr(s); err != nil {
			faults = append(faults, faultf(where, s, "not an address; as 10.1.0.1 or fd00:1::1"))
		}
	}
	faults = append(faults, checkSearch(where, d.Search))
	for _, o := range d.Options {
		if err := checkWord(o); err != nil {
			faults = append(faults, faultf(where+" option", o, "%w; as ndots:2", err))
		}
	}
	if d.Domain != "" {
		faults = append(faults, checkSearch(where, []string{d.Domain}))
	}
	return errors.Join(faults...)
}

func checkSearch(where string, search []string) error {
	for _, s := range search {
		if err := checkWord(s); err != nil {
			return faultf(where+" search", s, "%w; a domain, as lan", err)
		}
	}
	if kept := cutSearch(search); len(kept) < len(search) {
		return fmt.Errorf("%s search: %d domains in %d bytes; a resolver reads %d in %d", where,
			len(search), len(strings.Join(search, " ")), maxSearch, maxSearchBytes)
	}
	return nil
}
