package main

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

func execVerb() verb {
	return verb{
		name: "exec", form: "[flags] ID PROGRAM [ARGS...]", min: 2, max: -1, program: true,
		brief: "start a further program in a running container",
		about: `PROGRAM runs in all namespaces of the container ID, in its cgroup, with its environment, user, capabilities and restrictions, unless flags say otherwise. Flags stand before ID: what follows PROGRAM belongs to it.

A container that could look into the process that enters it (it has CAP_SYS_PTRACE, or fs.suid_dumpable is 1) is stopped until PROGRAM runs. Such a PROGRAM gets nothing of its own set-user-ID bit or file capabilities, unless the user is root. If this command is killed meanwhile, the next exec or nsinit gc lets the container run again.

The exit code is the program's.`,
		examples: []example{
			{"nsinit exec web ip route", "the routes of a running container"},
			{"nsinit exec -it -u nobody web sh", "a shell as another user"},
		},
		setup: setupExec,
	}
}

func setupExec(a *app) ([]group, action) {
	p := new(program)
	groups := []group{
		{"Program", p.flags(a.lookupEnv)},
		{"Security", p.securityFlags()},
	}
	return groups, func(args []string) (int, error) {
		if err := checkID(args[0]); err != nil {
			return exitFailure, err
		}
		if args[1] == "" {
			return exitFailure, usage("PROGRAM: empty")
		}
		return a.runtime().Exec(context.Background(), args[0], p.execSpec(args[1:]))
	}
}

func (p *program) execSpec(args []string) *container.ExecSpec {
	return &container.ExecSpec{
		Process: specs.Process{
			Args:     args,
			Env:      p.environment(),
			Cwd:      p.workdir,
			Terminal: p.tty,
		},
		User:        p.user,
		Interactive: p.interactive,
		Detach:      p.detach,
		Privileged:  p.privileged,
		CapAdd:      p.capAdd,
		CapDrop:     p.capDrop,
		PidFile:     p.pidFile,
	}
}

// checkID checks an ID argument.
func checkID(id string) error {
	if err := checkName(id); err != nil {
		return usage("ID: %s: %w", quote(id), err)
	}
	return nil
}
