package netsetup

import (
	"os"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func TestMain(m *testing.M) {
	if os.Getenv("NSINIT_VM") != "" {
		netsetuptest.Patience = 2 * time.Minute // emulation is 10 to 20 times slower
	}
	os.Exit(m.Run())
}
