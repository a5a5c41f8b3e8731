package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Type says what a frame's body is.
type Type uint16

// The frames, in the order in which they can come.
//
//	host                      init
//	Go {Start} [root]    ->         all that the init needs; nothing else releases it
//	                     <-   Console [master]   with a terminal: its host end
//	                     <-   Trace {Trace}      with --trace: a finished step
//	                     <-   Failed {Failure}   a step failed; the init exits
//	                     <-   Exec               all is done but the exec itself
//	                     <-   (end of file)      after Exec: the program runs, for the pipe is close-on-exec
//
// An end of file before Go tells the init that the host side died: it exits. An end of file
// without Exec and Failed tells the host side that the init was killed.
const (
	Go Type = iota + 1
	Console
	Trace
	Failed
	Exec
)

const (
	version   = 1
	headerLen = 8
	// MaxBody bounds a frame on both sides: arguments and environment have at most 6 MiB for an exec
	// (fs/exec.c, bprm_set_stack_rlimit).
	MaxBody = 16 << 20
	maxFDs  = 4
)

// A Conn is one end of the sync pipe: a stream socket. It owns its descriptor.
type Conn struct{ fd int }

// Pair returns the host side's end and the one that the child inherits, both close-on-exec. The caller
// closes them.
func Pair() (host *Conn, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("sync pipe: %w", err)
	}
	return &Conn{fds[0]}, os.NewFile(uintptr(fds[1]), "sync pipe"), nil
}

// NewConn takes over descriptor fd, which its caller got by inheritance.
func NewConn(fd int) *Conn { return &Conn{fd} }

// FD returns the descriptor, still owned by c.
func (c *Conn) FD() uintptr { return uintptr(c.fd) }

// Close closes the descriptor. A second call does nothing.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// Send writes one frame with v's encoding (nil: no body) and copies of fds.
func (c *Conn) Send(t Type, v any, fds ...int) error {
	frame := make([]byte, headerLen, 512)
	if v != nil {
		var err error
		if frame, err = Marshal(frame, v); err != nil {
			return fmt.Errorf("sync pipe: %w", err)
		}
	}
	if len(frame)-headerLen > MaxBody {
		return fmt.Errorf("sync pipe: message has %d bytes, more than %d", len(frame)-headerLen, MaxBody)
	}
	binary.NativeEndian.PutUint16(frame, version)
	binary.NativeEndian.PutUint16(frame[2:], uint16(t))
	binary.NativeEndian.PutUint32(frame[4:], uint32(len(frame)-headerLen))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(frame) > 0 {
		n, err := unix.SendmsgN(c.fd, frame, oob, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("sync pipe: send: %w", err)
		}
		frame, oob = frame[n:], nil
	}
	return nil
}

// A Frame is one received message. Its files belong to the receiver.
type Frame struct {
	Type  Type
	Body  []byte
	Files []*os.File
}

// Receive reads one frame. io.EOF means that the other side closed between frames; inside of one it
// is io.ErrUnexpectedEOF.
func (c *Conn) Receive() (f Frame, err error) {
	defer func() {
		if err != nil {
			for _, file := range f.Files {
				_ = file.Close()
			}
			f = Frame{}
		}
	}()
	var header [headerLen]byte
	if f.Files, err = c.fill(header[:], nil); err != nil {
		return f, err
	}
	if v := binary.NativeEndian.Uint16(header[:]); v != version {
		return f, fmt.Errorf("sync pipe: version %d, want %d", v, version)
	}
	f.Type = Type(binary.NativeEndian.Uint16(header[2:]))
	n := binary.NativeEndian.Uint32(header[4:])
	if n > MaxBody {
		return f, fmt.Errorf("sync pipe: message of %d bytes, more than %d", n, MaxBody)
	}
	f.Body = make([]byte, n)
	if f.Files, err = c.fill(f.Body, f.Files); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return f, err
}

// fill reads exactly len(buf) bytes and adds descriptors that come with them to files.
func (c *Conn) fill(buf []byte, files []*os.File) ([]*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	for got := 0; got < len(buf); {
		n, oobn, flags, _, err := unix.Recvmsg(c.fd, buf[got:], oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return files, fmt.Errorf("sync pipe: receive: %w", err)
		}
		files = append(files, rights(oob[:oobn])...)
		if flags&unix.MSG_CTRUNC != 0 {
			return files, errors.New("sync pipe: more descriptors than expected")
		}
		if n == 0 {
			if got == 0 {
				return files, io.EOF
			}
			return files, io.ErrUnexpectedEOF
		}
		got += n
	}
	return files, nil
}

func rights(oob []byte) (files []*os.File) {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		fds, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files
}
