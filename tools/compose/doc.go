// Package compose holds only tests, of deployments/compose.
package compose
