package netsetup

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// BenchmarkBridge is the network's share of a start on a bridge that is there, its
// halves apart, sockets included: medians in microseconds. What making the
// namespace costs is not in them.
func BenchmarkBridge(b *testing.B) {
	host := netsetuptest.NewHost(b)
	p := planOf(b, bridgeNet)
	var attach, configure []time.Duration
	for range b.N {
		var ns *NetNS
		err := host.Do(func() (err error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			ns, err = currentNetNS()
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		var a Attachment
		err = host.Do(func() error {
			defer since(&attach, time.Now())
			h, err := OpenHost(nil)
			if err != nil {
				return err
			}
			defer h.Close()
			a, err = Attach(context.Background(), h, ns, p, lanAddrs(2), nil, noRecord)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		err = ns.Do(func() error {
			defer since(&configure, time.Now())
			in, err := OpenInside()
			if err != nil {
				return err
			}
			defer in.Close()
			if err := ConfigureLoopback(in, 0); err != nil {
				return err
			}
			if err := Configure(in, a); err != nil {
				return err
			}
			return in.Settle()
		})
		if err != nil {
			b.Fatal(err)
		}
		_ = ns.Close()
	}
	b.ReportMetric(median(attach), "attach-us")
	b.ReportMetric(median(configure), "configure-us")
}

func since(to *[]time.Duration, start time.Time) { *to = append(*to, time.Since(start)) }

func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2].Microseconds())
}
