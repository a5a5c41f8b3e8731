//go:build !race

package creds

const raceDetector = false
