package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for the kernel's answer to one transaction. When a
// kernel has no nf_tables it answers a transaction of many messages only once, and
// the library would wait for the others for ever.
const answerTimeout = 10 * time.Second

// clashTries is how often a transaction is sent again that met another one.
const clashTries = 5

// elementsPerMessage keeps a list of elements below the 64 KiB of a netlink attribute.
const elementsPerMessage = 500

// socketBuffer holds the largest transaction, which is one datagram, and all its
// acknowledgements, which are read after it was sent: the elements of some 40,000
// containers. Only what is used of it takes memory.
const socketBuffer = 4 << 20

// A transaction is a list of changes that the kernel makes as a whole or not at all.
type transaction struct {
	conn *nftables.Conn
	errs []error
}

func (tx *transaction) add(e elements, t table) {
	for _, c := range split(e.changes(t)) {
		tx.errs = append(tx.errs, tx.conn.SetAddElements(c.set, c.elements))
	}
}

// makeTable adds all of the table that is not there yet, and sets the rules anew.
// Sets that are there stay, and so do their elements, but for what the ledger holds:
// which devices forward because of nsinit.
func (tx *transaction) makeTable(t table, allIPv6 bool) {
	tx.conn.AddTable(t.Table)
	for _, s := range t.sets() {
		tx.errs = append(tx.errs, tx.conn.AddSet(s, nil))
	}
	for _, s := range []*nftables.Set{t.opened4, t.opened6, t.samePort} {
		tx.conn.FlushSet(s)
	}
	for _, c := range t.chains(allIPv6) {
		tx.conn.AddChain(c.Chain)
		tx.conn.FlushChain(c.Chain)
		for _, r := range c.rules {
			if r.set != nil {
				tx.errs = append(tx.errs, tx.conn.AddSet(r.set, transportElements()))
			}
			tx.conn.AddRule(&nftables.Rule{Table: t.Table, Chain: c.Chain, Exprs: r.exprs, UserData: r.userData()})
		}
	}
}

// commit sends what fill puts together. what says in an error what was being done.
// The error wraps the kernel's number.
func commit(ctx context.Context, what string, fill func(*transaction)) error {
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("nftables: %s: %w", what, err)
		}
		conn, err := connect()
		if err != nil {
			return fmt.Errorf("nftables: %s: %w", what, explain(err))
		}
		tx := &transaction{conn: conn}
		fill(tx)
		if err := errors.Join(tx.errs...); err != nil {
			return fmt.Errorf("nftables: %s: %w", what, err)
		}
		gate.Change()
		err = conn.Flush()
		if err == nil {
			return nil
		}
		if try == clashTries || !clash(err) {
			return fmt.Errorf("nftables: %s: %w", what, explain(err))
		}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
}

// connect returns a connection in the namespace of the calling thread, which opens
// its socket when it is used and closes it afterwards.
func connect() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(socketBuffer), c.SetReadBuffer(socketBuffer),
			c.SetDeadline(time.Now().Add(answerTimeout)))
	}))
}

// clash tells whether another transaction was in the way.
func clash(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

// gone tells whether what was to be removed, or added to, is not there.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) }

// explain leaves the kernel's number of an error that may hold one for each message,
// and says what it means for the user.
func explain(err error) error {
	number, ok := errors.AsType[unix.Errno](err)
	if !ok {
		return err
	}
	switch number {
	case unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT:
		return fmt.Errorf("%w: the kernel has no nf_tables with family inet (CONFIG_NF_TABLES_INET, module nf_tables)", number)
	case unix.EPERM:
		return fmt.Errorf("%w: CAP_NET_ADMIN is needed in the host's user namespace", number)
	}
	return number
}

// modules completes the error of making the table: ENOENT there is not a missing
// object, but a kind of chain or expression that the kernel can't load.
func modules(err error) error {
	if gone(err) {
		return fmt.Errorf("%w: the kernel lacks one of the modules nft_chain_nat, nft_ct, nft_masq, nft_nat", err)
	}
	return err
}
