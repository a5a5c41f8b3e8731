package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
)

// KindSpoof has in Name "PORT@MAC": a bridge's port, and the one source MAC address that
// frames from there may have.
const KindSpoof = "macspoof"

// A spoofTable is nsinit's table of family bridge: what may come in by a checked port
// is an element of a set, so that there is one rule, whatever the number of containers.
//
//	table bridge nsinit {
//		set checked { type ifname; }
//		set allowed { type ifname . ether_addr; }
//		chain prerouting {
//			type filter hook prerouting priority dstnat; policy accept;
//			iifname @checked iifname . ether saddr != @allowed counter drop
//		}
//	}
type spoofTable struct {
	*nftables.Table
	checked, allowed *nftables.Set
}

func newSpoofTable() spoofTable {
	t := spoofTable{Table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}}
	t.checked = &nftables.Set{Table: t.Table, ID: 1, Name: "checked", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
	t.allowed = &nftables.Set{
		Table: t.Table, ID: 2, Name: "allowed", Concatenation: true, KeyByteOrder: binaryutil.NativeEndian, // for nft list only
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr),
	}
	return t
}

// chain is what the plugin of the same key has, at its priority: before anything else of
// the bridge judges the frame.
func (t spoofTable) chain() chainSpec {
	const sourceMAC = 6 // its offset in the frame
	accept := nftables.ChainPolicyAccept
	rule := join(cameBy(t.checked), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: first},
		&expr.Payload{DestRegister: 2, Base: expr.PayloadBaseLLHeader, Offset: sourceMAC, Len: 6},
		lookup(t.allowed, true),
	}, verdict(expr.VerdictDrop))
	return chainSpec{&nftables.Chain{
		Name: "prerouting", Table: t.Table, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	}, []ruleSpec{{comment: "another source MAC than the container's", exprs: rule}}}
}

// SpoofCheck drops what comes from inside a with another source MAC address than its
// own. It is recorded first; Undo takes it back.
func SpoofCheck(ctx context.Context, a netsetup.Attachment, owner string, opt Options, record netsetup.Recorder) error {
	o := netsetup.Object{Kind: KindSpoof, Network: a.Network, Name: a.HostIf + "@" + a.MAC, Owner: owner}
	if err := record(o); err != nil {
		return fmt.Errorf("MAC spoofing check: %s: record: %w", o.Name, err)
	}
	if err := addSpoof(ctx, o, opt); err != nil {
		return fmt.Errorf("MAC spoofing check: %w", noBridgeTable(err))
	}
	return nil
}

// addSpoof adds to the table, and makes it when it is not there.
func addSpoof(ctx context.Context, o netsetup.Object, opt Options) error {
	t := newSpoofTable()
	changes, err := t.changes(o.Name, false)
	if err != nil {
		return err
	}
	add := func() error { return changeElements(ctx, "add "+o.Name+" to table bridge "+tableName, changes...) }
	if err := add(); !gone(err) {
		return err
	}
	lock, err := takeLock(ctx, opt.StateDir)
	if err != nil {
		return err
	}
	defer lock.release()
	if err := add(); !gone(err) { // by another start, meanwhile
		return err
	}
	all := []netsetup.Object{o}
	if opt.Recorded != nil {
		others, err := opt.Recorded()
		if err != nil {
			return fmt.Errorf("records of other containers: %w", err)
		}
		all = append(all, others...)
	}
	return restoreSpoof(ctx, all)
}

// make makes the table with what the objects stand for; those of other kinds, and
// of other versions, are passed over. What is there stays. The caller holds the lock.
func (t spoofTable) make(ctx context.Context, objects []netsetup.Object) error {
	c := t.chain()
	err := commit(ctx, "make table bridge "+tableName, func(tx *transaction) {
		tx.conn.AddTable(t.Table)
		tx.errs = append(tx.errs, tx.conn.AddSet(t.checked, nil), tx.conn.AddSet(t.allowed, nil))
		tx.conn.AddChain(c.Chain)
		tx.conn.FlushChain(c.Chain)
		for _, r := range c.rules {
			tx.conn.AddRule(&nftables.Rule{Table: t.Table, Chain: c.Chain, Exprs: r.exprs, UserData: r.userData()})
		}
		for _, o := range objects {
			if o.Kind != KindSpoof {
				continue
			}
			changes, err := t.changes(o.Name, false)
			if err != nil {
				continue
			}
			for _, change := range changes {
				tx.errs = append(tx.errs, tx.conn.SetAddElements(change.set, change.elements))
			}
		}
	})
	if gone(err) {
		return fmt.Errorf("%w: the kernel lacks the module nft_meta_bridge (CONFIG_NFT_BRIDGE_META), which macspoofchk needs", err)
	}
	return err
}

// restoreSpoof makes the table again if any of the objects need it.
func restoreSpoof(ctx context.Context, objects []netsetup.Object) error {
	for _, o := range objects {
		if o.Kind == KindSpoof {
			return newSpoofTable().make(ctx, objects)
		}
	}
	return nil
}

// changes are what name, "PORT@MAC", stands for. An address is allowed before its port
// is checked.
func (t spoofTable) changes(name string, remove bool) ([]elementChange, error) {
	port, mac, ok := strings.Cut(name, "@")
	addr, err := netsetup.ParseMAC(mac)
	if !ok || err != nil || port == "" {
		return nil, fmt.Errorf("%q is not of the form PORT@MAC", name)
	}
	key := append(nameKey(port), addr...)
	key = append(key, 0, 0) // a part of a key fills words of 4 bytes
	changes := []elementChange{
		{set: t.allowed, remove: remove, elements: []nftables.SetElement{{Key: key}}},
		{set: t.checked, remove: remove, elements: []nftables.SetElement{nameElement(port)}},
	}
	if remove {
		changes[0], changes[1] = changes[1], changes[0]
	}
	return changes, nil
}

// undoSpoofTable removes the table; none is no error.
func undoSpoofTable(ctx context.Context) error {
	err := commit(ctx, "remove table bridge "+tableName, func(tx *transaction) { tx.conn.DelTable(newSpoofTable().Table) })
	if gone(err) || unsupported(err) {
		return nil
	}
	return err
}

// unsupported tells whether the kernel can't have tables of the family.
func unsupported(err error) bool {
	for _, number := range []unix.Errno{unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT} {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}

func noBridgeTable(err error) error {
	if number, ok := errors.AsType[unix.Errno](err); ok && unsupported(err) {
		return fmt.Errorf("the kernel has no nftables of family bridge (CONFIG_NF_TABLES_BRIDGE), which macspoofchk needs: %w", number)
	}
	return err
}

// checkSpoof returns what is missing of a's check.
func checkSpoof(a netsetup.Attachment) ([]netsetup.Difference, error) {
	t := newSpoofTable()
	missing := func(object string) []netsetup.Difference {
		return []netsetup.Difference{{Object: "table bridge " + tableName, Want: object, Got: "none"}}
	}
	conn, err := connect()
	if err != nil {
		return nil, err
	}
	if _, err := conn.ListTableOfFamily(tableName, t.Family); gone(err) {
		return missing("the table"), nil
	} else if err != nil {
		return nil, err
	}
	c := t.chain()
	rules, err := conn.GetRules(t.Table, c.Chain)
	if err != nil && !gone(err) {
		return nil, err
	}
	if len(rules) < len(c.rules) {
		return missing("the rule of chain " + c.Name), nil
	}
	changes, err := t.changes(a.HostIf+"@"+a.MAC, false)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		if !hasElement(conn, c.set, c.elements[0].Key) {
			return missing(a.HostIf + "@" + a.MAC), nil
		}
	}
	return nil, nil
}
