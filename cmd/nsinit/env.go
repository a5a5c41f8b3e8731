package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// maxEnvFile bounds a file of environment variables, and each of its lines: the
// kernel takes no string of more than 128 KiB and no list of more than 6 MiB.
const (
	maxEnvFile = 8 << 20
	maxEnvLine = 128 << 10
)

// A lookup finds a variable in the caller's environment.
type lookup func(name string) (value string, ok bool)

// parseEnv parses `K=V`, or `K`, which takes the caller's value. ok is false if
// the caller has none: then nothing is passed on.
func parseEnv(s string, caller lookup) (entry string, ok bool, err error) {
	name, value, has := strings.Cut(s, "=")
	if err := checkEnvName(name); err != nil {
		return "", false, err
	}
	if !has {
		if value, ok = caller(name); !ok {
			return "", false, nil
		}
	}
	if strings.IndexByte(value, 0) >= 0 {
		return "", false, errors.New("holds a NUL byte")
	}
	// Programs copy HOME into passwd and other files of lines.
	if name == "HOME" && strings.ContainsAny(value, "\n\r") {
		return "", false, errors.New("HOME holds a line end")
	}
	return name + "=" + value, true, nil
}

func checkEnvName(name string) error {
	if name == "" {
		return errors.New("no name before =")
	}
	for _, r := range name {
		switch {
		case r == ' ' || r == '\t':
			return errors.New("blank in the name")
		case r < ' ' || r == 0x7f:
			return errors.New("control character in the name")
		}
	}
	return nil
}

// readEnvFile reads a file of docker's form.
func readEnvFile(path string, caller lookup) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(data) > maxEnvFile {
		return nil, fmt.Errorf("larger than %d MiB", maxEnvFile>>20)
	}
	return parseEnvFile(data, caller)
}

// parseEnvFile parses docker's form: a line is `K=V`, where V is taken as it
// stands, quotes and blanks included, or `K`, which takes the caller's value.
// Empty lines, lines that begin with # and blanks before a name are skipped, and
// so are a byte order mark and the carriage return of a CR LF.
func parseEnvFile(data []byte, caller lookup) ([]string, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, maxEnvLine)
	var env []string
	n := 0
	for scanner.Scan() {
		n++
		line := strings.TrimLeft(scanner.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if !utf8.ValidString(line) {
			return nil, fmt.Errorf("line %d: not UTF-8", n)
		}
		entry, ok, err := parseEnv(line, caller)
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", n, quote(line), err)
		}
		if ok {
			env = append(env, entry)
		}
	}
	if scanner.Err() != nil {
		return nil, fmt.Errorf("line %d: longer than %d KiB", n+1, maxEnvLine>>10)
	}
	return env, nil
}

// cause takes the path out of an error of the os package: the caller has said it.
func cause(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
