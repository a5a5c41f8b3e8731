package policy

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The guard is a second lock on the host's loopback, for devices with route_localnet.
// The table's rules go when someone flushes the host's ruleset, as reloading Debian's
// nftables service does, and containers that run would reach the loopback until the
// next one starts. The guard is a small program on the device itself, and goes with
// it. Queries for the gateway pass it before they are turned towards the resolver; with
// br_netfilter, after, and then by a mark that no container can give to a packet, as
// marks don't cross network namespaces.

// relayMark is the mark of relayed queries, one bit that no tool known to us uses.
const relayMark = 1 << 27

const guardName = "nsinit-loopback"

// setGuard puts the guard on the device. One that is there is replaced.
func setGuard(device string) error {
	rt, err := openRoutes()
	if err != nil {
		return err
	}
	defer rt.Close()
	link, err := rt.LinkByName(device)
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	program, err := loadGuard()
	if err != nil {
		return fmt.Errorf("%s: load program: %w", device, err)
	}
	defer unix.Close(program) // the filter keeps it
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := rt.QdiscReplace(clsact); err != nil {
		return fmt.Errorf("%s: add clsact: %w", device, err)
	}
	if err := rt.FilterReplace(guardFilter(link.Attrs().Index, program)); err != nil {
		return fmt.Errorf("%s: add filter: %w", device, err)
	}
	return nil
}

func guardFilter(index, program int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS,
			Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1,
		},
		Fd: program, Name: guardName, DirectAction: true,
	}
}

// removeGuard is no error if there is none. The clsact stays: it may be of use to
// others by now, and does nothing by itself.
func removeGuard(device string) error {
	rt, err := openRoutes()
	if err != nil {
		return err
	}
	defer rt.Close()
	link, err := rt.LinkByName(device)
	if err != nil {
		return nil // the guard went with the device
	}
	filters, err := rt.FilterList(link, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return nil // no clsact
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Name == guardName {
			if err := rt.FilterDel(f); err != nil {
				return fmt.Errorf("%s: remove filter: %w", device, err)
			}
		}
	}
	return nil
}

// An instruction of BPF (linux/bpf.h, struct bpf_insn).
type instruction struct {
	code    uint8
	regs    uint8 // destination in the lower four bits, source in the upper
	jump    int16
	operand int32
}

// guardProgram drops IPv4 from or to 127.0.0.0/8 and has no opinion on all else.
func guardProgram() []instruction {
	const (
		movReg  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
		movImm  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
		loadCtx = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
		loadAbs = unix.BPF_LD | unix.BPF_ABS | unix.BPF_B // of packet r6 into r0
		jumpNot = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
		jumpIf  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jumpBit = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		exit    = unix.BPF_JMP | unix.BPF_EXIT

		networkHeader  = -0x100000 // SKF_NET_OFF
		mark, protocol = 8, 16     // in struct __sk_buff; the latter in network order
		shot, unspec   = 2, -1     // TC_ACT_SHOT, TC_ACT_UNSPEC
	)
	ipv4 := int32(binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}))
	return []instruction{
		{code: movReg, regs: 1<<4 | 6},                  // r6 = context
		{code: loadCtx, regs: 6<<4 | 2, jump: protocol}, // r2 = protocol
		{code: jumpNot, regs: 2, jump: 6, operand: ipv4},
		{code: loadCtx, regs: 6<<4 | 2, jump: mark}, // r2 = mark
		{code: jumpBit, regs: 2, jump: 4, operand: relayMark},
		{code: loadAbs, operand: networkHeader + 16}, // destination
		{code: jumpIf, regs: 0, jump: 4, operand: 127},
		{code: loadAbs, operand: networkHeader + 12}, // source
		{code: jumpIf, regs: 0, jump: 2, operand: 127},
		{code: movImm, regs: 0, operand: unspec},
		{code: exit},
		{code: movImm, regs: 0, operand: shot},
		{code: exit},
	}
}

// loadGuard returns a descriptor of the program, owned by the caller.
func loadGuard() (int, error) {
	program, license := guardProgram(), []byte("Apache-2.0\x00")
	attr := struct { // union bpf_attr for BPF_PROG_LOAD, as of 3.18
		kind, count   uint32
		instructions  *instruction
		license       *byte
		level, size   uint32
		log           *byte
		version, flag uint32
	}{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(program)),
		instructions: &program[0], license: &license[0],
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
