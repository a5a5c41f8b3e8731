//go:build race

package creds

const raceDetector = true
