package cni

import "fmt"

// Codes of errors (SPEC, section 5). Those below 100 are the specification's.
const (
	CodeIncompatibleVersion = 1
	CodeUnknownContainer    = 3
	CodeInvalidEnvironment  = 4
	CodeIO                  = 5
	CodeDecoding            = 6
	CodeInvalidConfig       = 7
	CodeInvalidNetNS        = 8
	CodeTryAgainLater       = 11
	CodeUnavailable         = 50 // STATUS: ADD would fail
	CodeInternal            = 999
)

// An Error is what a plugin answers when it fails.
type Error struct {
	CNIVersion string `json:"cniVersion,omitzero"`
	Code       int    `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details,omitzero"`
}

func (e *Error) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + "; " + e.Details
}

// Errorf makes an error with a code.
func Errorf(code int, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}
