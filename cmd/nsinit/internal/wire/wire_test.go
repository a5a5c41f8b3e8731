package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsinit/nsinit/fs"
	"github.com/nsinit/nsinit/netsetup"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func sample() Start {
	return Start{
		Args: []string{"ip", "addr"}, Env: []string{"A=1"}, Cwd: "/", User: "nobody", Terminal: true, Size: Winsize{24, 80},
		Sysctls:      []Sysctl{{"net.ipv4.ping_group_range", "0 2147483647"}},
		Networks:     []netsetup.Attachment{{Network: "lan", IfName: "eth0", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")}, Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1")}}},
		Root:         fs.Config{Root: "/r", Mounts: []specs.Mount{{Destination: "/d", Type: "bind", Source: "/s", Options: []string{"ro"}}}, Files: []fs.File{{Path: "/etc/hosts", Content: []byte("x"), Mode: 0o644}}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}, Umask: 0o22, Init: true,
	}
}

func TestCodecRoundTrip(t *testing.T) {
	in := sample()
	data, err := Marshal(nil, &in)
	if err != nil {
		t.Fatal(err)
	}
	var out Start
	if err := Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestCodecRefusesWhatIsCut(t *testing.T) {
	in := sample()
	data, err := Marshal(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		var out Start
		if err := Unmarshal(data[:n], &out); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for the whole", n, len(data))
		}
	}
	var out Start
	if err := Unmarshal(append(data, 0), &out); err == nil {
		t.Error("a byte too many was taken")
	}
	if _, err := Marshal(nil, struct{ F func() }{}); err == nil {
		t.Error("a function was encoded")
	}
}

// The receiver checks lengths against what is there before it takes memory.
func TestCodecRefusesLengthsThatLie(t *testing.T) {
	huge := binary.AppendUvarint(nil, 1<<40)
	for name, v := range map[string]any{"string": new(string), "slice": new([]string), "bytes": new([]byte), "map": new(map[string]string)} {
		if err := Unmarshal(huge, v); !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, child, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(child.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Close()
	b = NewConn(fd)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestFrames(t *testing.T) {
	a, b := pair(t)
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	long := Failure{Step: "mounts", Text: strings.Repeat("x", 1<<20), Code: 125}
	sent := make(chan error)
	go func() { sent <- errors.Join(a.Send(Failed, long, int(f.Fd())), a.Send(Exec, nil), a.Close()) }()

	got, err := b.Receive()
	if err != nil || got.Type != Failed || len(got.Files) != 1 {
		t.Fatalf("%v, type %d, %d files", err, got.Type, len(got.Files))
	}
	defer got.Files[0].Close()
	var out Failure
	if err := Unmarshal(got.Body, &out); err != nil || out != long {
		t.Errorf("a megabyte came as %d bytes: %v", len(out.Text), err)
	}
	if flags, err := unix.FcntlInt(got.Files[0].Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("a received descriptor is not close-on-exec: %v", err)
	}
	if got, err = b.Receive(); err != nil || got.Type != Exec || len(got.Body) != 0 {
		t.Errorf("exec: %v, %+v", err, got)
	}
	if _, err = b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestFramesRefused(t *testing.T) {
	header := func(v, typ uint16, n uint32) []byte {
		b := make([]byte, headerLen)
		binary.NativeEndian.PutUint16(b, v)
		binary.NativeEndian.PutUint16(b[2:], typ)
		binary.NativeEndian.PutUint32(b[4:], n)
		return b
	}
	for name, raw := range map[string][]byte{
		"half a header":    header(version, 1, 0)[:3],
		"half a body":      append(header(version, 1, 5), "abc"...),
		"another version":  header(version+1, 1, 0),
		"a body too large": header(version, 1, MaxBody+1),
	} {
		a, b := pair(t)
		if _, err := unix.Write(int(a.FD()), raw); err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		if f, err := b.Receive(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, %+v", name, err, f)
		}
	}
	a, _ := pair(t)
	if err := a.Send(Go, make([]byte, MaxBody+1)); err == nil {
		t.Error("a frame over the limit was sent")
	}
}

func FuzzUnmarshal(f *testing.F) {
	in := sample()
	data, err := Marshal(nil, in)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Start
		if err := Unmarshal(data, &s); err != nil {
			return
		}
		again, err := Marshal(nil, s)
		if err != nil {
			t.Fatalf("decoded, but can't be encoded: %v", err)
		}
		var s2 Start
		if err := Unmarshal(again, &s2); err != nil {
			t.Fatalf("encoded, but can't be decoded: %v", err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{1, 0, 1, 0, 2, 0, 0, 0, 'h', 'i'})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return // more than the socket holds
		}
		a, b := pair(t)
		_, _ = unix.Write(int(a.FD()), data)
		_ = a.Close()
		for {
			fr, err := b.Receive()
			if err != nil {
				return
			}
			var failed Failure
			_ = Unmarshal(fr.Body, &failed)
		}
	})
}

func BenchmarkStart(b *testing.B) {
	in := sample()
	for b.Loop() {
		data, _ := Marshal(nil, in)
		var out Start
		if err := Unmarshal(data, &out); err != nil {
			b.Fatal(err)
		}
	}
}
