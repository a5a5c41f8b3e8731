package inside

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The caller's session keyring is left behind.
func TestJoinNewKeyring(t *testing.T) {
	session := func() int {
		id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
		if err != nil {
			t.Skip("keyrings: ", err)
		}
		return id
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and it ends with this goroutine
		before := session()
		if err := JoinNewKeyring(); err != nil {
			t.Error(err)
		}
		if after := session(); after == before {
			t.Errorf("the session keyring is still %d", after)
		}
	}()
	<-done
}
