// Package reference writes docs/reference/metrics.md from the code, and holds it
// against the code. It has tests alone: nothing of it ships.
package reference
