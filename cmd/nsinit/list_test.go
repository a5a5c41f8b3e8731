package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
	"github.com/nsinit/nsinit/netsetup"
)

func TestListTable(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	states := []container.State{
		{ID: "a", Status: "running", Pid: 12, Created: now.Add(-90 * time.Second), Args: []string{"sh", "-c", "a\nb\x1b[0m"}, Networks: []netsetup.Attachment{
			{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")}},
		}},
		{ID: "longer", Status: "stopped", Created: now.Add(time.Hour), Args: []string{strings.Repeat("é", 50)}},
	}
	want := `ID      STATUS   PID  AGE  ADDRESSES         COMMAND
a       running  12   1m   10.0.0.2,fd00::2  sh -c a; b\x1b[0m
longer  stopped  -    0s   -                 ` + strings.Repeat("é", 37) + "...\n"
	if diff := cmp.Diff(want, table(listRows(states, now), nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	painted := table(listRows(states, now), paintStatus)
	for _, s := range []string{"\x1b[32mrunning\x1b[0m  12", "\x1b[2mstopped\x1b[0m  -"} {
		if !strings.Contains(painted, s) {
			t.Errorf("%q lacks %q", painted, s)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 59 * time.Minute: "59m",
		47 * time.Hour: "47h", 48 * time.Hour: "2d", 9000 * time.Hour: "375d",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// Nobody but a person at a terminal gets colour.
func TestColour(t *testing.T) {
	t.Parallel()
	a := &app{stdout: new(bytes.Buffer), lookupEnv: func(string) (string, bool) { return "", false }}
	if a.colour() {
		t.Error("colour in a buffer")
	}
	if ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err == nil {
		defer ptmx.Close()
		a.stdout = ptmx
		if !a.colour() {
			t.Error("no colour on a terminal")
		}
		for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
			name, value, _ := strings.Cut(env, "=")
			a.lookupEnv = func(n string) (string, bool) {
				if n == name {
					return value, true
				}
				return "", false
			}
			if a.colour() {
				t.Errorf("colour with %s", env)
			}
		}
	}
}

func TestFail(t *testing.T) {
	t.Parallel()
	err := errors.Join(errors.New("one"), errors.New("two\x1b[31m"))
	for _, tt := range []struct {
		json bool
		want string
	}{
		{false, "nsinit: one; two\\x1b[31m\n"},
		{true, `{"error":"one; two\\x1b[31m","exitCode":125}` + "\n"},
	} {
		var out bytes.Buffer
		a := &app{stderr: &out, json: tt.json}
		if code := a.fail(exitFailure, err); code != 125 || out.String() != tt.want {
			t.Errorf("%d, %q; want %q", code, out.String(), tt.want)
		}
		if tt.json && !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %q", out.String())
		}
	}
}
