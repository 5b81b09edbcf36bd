//go:build !linux

package embedded

import "errors"

func mount(string, string) error { return errors.New("known for Linux only") }

func unmount(string) error { return nil }
