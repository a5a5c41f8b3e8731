package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A mountEntry is one line of mountinfo, as far as it is of use here (proc(5)).
type mountEntry struct {
	id, parent int
	major      int
	root       string // what of the file system is mounted
	point      string // where, as seen from the process's root
	fstype     string
}

// readMounts lists the mounts of the calling thread's namespace below its root, through proc, a procfs.
func readMounts(proc int) ([]mountEntry, error) {
	fd, err := openAt2(proc, "thread-self/mountinfo", unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("mountinfo: %w", err)
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	data, err := readAll(f)
	if err != nil {
		return nil, err
	}
	return parseMounts(data)
}

// readAll reads in large pieces: the kernel walks the mounts anew for each.
func readAll(f *os.File) ([]byte, error) {
	data := make([]byte, 0, 32<<10)
	for {
		n, err := f.Read(data[len(data):cap(data)])
		if n == 0 { // io.EOF or a failure
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("mountinfo: %w", err)
			}
			return data, nil
		}
		data = data[:len(data)+n]
		if cap(data)-len(data) < 4096 {
			data = append(make([]byte, 0, 2*cap(data)), data...)
		}
	}
}

func parseMounts(data []byte) ([]mountEntry, error) {
	var mounts []mountEntry
	for line := range bytes.Lines(data) {
		m, ok := parseMount(bytes.TrimSuffix(line, []byte("\n")))
		if !ok {
			return nil, fmt.Errorf("mountinfo: %q: is not understood", line)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// parseMount reads "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue".
func parseMount(line []byte) (m mountEntry, ok bool) {
	front, back, ok := bytes.Cut(line, []byte(" - "))
	if !ok {
		return m, false
	}
	f := bytes.Split(front, []byte(" "))
	if len(f) < 6 {
		return m, false
	}
	major, _, _ := bytes.Cut(f[2], []byte(":"))
	fstype, _, _ := bytes.Cut(back, []byte(" "))
	m.root, m.point, m.fstype = unescape(f[3]), unescape(f[4]), string(fstype)
	for i, field := range [][]byte{f[0], f[1], major} {
		n, err := strconv.Atoi(string(field))
		if err != nil || n < 0 {
			return m, false
		}
		*[]*int{&m.id, &m.parent, &m.major}[i] = n
	}
	return m, true
}

// unescape undoes the kernel's "\040" for space, tab, newline and backslash.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if n, err := strconv.ParseUint(string(b[i+1:i+4]), 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}

// mountID is the number that mountinfo knows fd's mount by.
func mountID(fd int) (int, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	if err != nil {
		return 0, fmt.Errorf("statx: %w", err)
	}
	return int(st.Mnt_id), nil
}

// under tells whether name is dir or lies below it; both are clean.
func under(name, dir string) bool {
	return dir == "/" || name == dir || len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir
}

// below returns the mounts of which root is an ancestor.
func below(mounts []mountEntry, root int) []mountEntry {
	parents := make(map[int]int, len(mounts))
	for _, m := range mounts {
		parents[m.id] = m.parent
	}
	var found []mountEntry
	for _, m := range mounts {
		id, ok := m.parent, true
		for ok && id != root {
			up, known := parents[id]
			ok = known && up != id
			id = up
		}
		if ok {
			found = append(found, m)
		}
	}
	return found
}
