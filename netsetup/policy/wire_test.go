package policy

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadAnswer(t *testing.T) {
	answer := func(number int32) []byte {
		b := appendMessage(nil, unix.NLMSG_ERROR, 0, 2, 0, 0, nil)
		binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr:], uint32(-number))
		return b
	}
	if err := readAnswer(answer(0)); err != nil {
		t.Error(err)
	}
	if err := readAnswer(answer(int32(unix.ENOENT))); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	for _, bad := range [][]byte{nil, answer(0)[:19], appendMessage(nil, unix.NLMSG_DONE, 0, 2, 0, 0, nil)} {
		if readAnswer(bad) == nil {
			t.Errorf("%v is taken for an acknowledgement", bad)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add(appendMessage(nil, unix.NLMSG_ERROR, 0, 2, 0, 0, nil))
	f.Fuzz(func(_ *testing.T, b []byte) { _ = readAnswer(b) })
}

// Attributes are filled up to 4 bytes, which don't count in their length.
func TestAppendAttr(t *testing.T) {
	b := appendAttr(nil, 1, []byte("nsinit\x00"))
	if len(b) != 12 || binary.NativeEndian.Uint16(b) != 11 {
		t.Errorf("%v", b)
	}
}
