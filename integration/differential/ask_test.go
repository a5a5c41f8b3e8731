package differential

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// An asker is one ip or bridge that runs in a node for the whole of a case: starting it is most of what a question costs.
type asker struct {
	process *netsetuptest.Process
	in      io.WriteCloser
	answers *json.Decoder
}

func newAsker(t *testing.T, n *netsetuptest.Node, tool string, flags ...string) *asker {
	t.Helper()
	cmd := n.Command(append(append([]string{tool}, flags...), "-j", "-batch", "-")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &asker{process: n.Start(t, cmd), in: in, answers: json.NewDecoder(out)}
}

// ask returns the answer to each question.
func (a *asker) ask(t *testing.T, questions ...string) [][]map[string]any {
	t.Helper()
	if _, err := io.WriteString(a.in, strings.Join(questions, "\n")+"\n"); err != nil {
		t.Fatalf("%q: %v: %s", a.process.Cmd.Args, err, a.process.Stderr())
	}
	all := make([][]map[string]any, len(questions))
	for i := range all {
		if err := a.answers.Decode(&all[i]); err != nil {
			t.Fatalf("%q: %s: %v: %s", a.process.Cmd.Args, questions[i], err, a.process.Stderr())
		}
	}
	return all
}

func (a *asker) close() {
	_ = a.in.Close()
	<-a.process.Done()
}

// A place is one of a case's two nodes, by the word that facts call it, with those who answer questions about it.
type place struct {
	*netsetuptest.Node
	t                      *testing.T // as long as it lasts
	word                   string
	links, v4, v6, bridges *asker
}

func newPlace(t *testing.T, n *netsetuptest.Node, word string) *place {
	t.Helper()
	return &place{
		Node: n, t: t, word: word,
		links: newAsker(t, n, "ip", "-d"), v4: newAsker(t, n, "ip", "-d", "-4"), v6: newAsker(t, n, "ip", "-d", "-6"),
	}
}

// close ends the askers, which would keep the namespace.
func (p *place) close() {
	for _, a := range []*asker{p.links, p.v4, p.v6, p.bridges} {
		if a != nil {
			a.close()
		}
	}
}
