// Package promrules holds only tests: they run the unit tests of
// deployments/prometheus on Prometheus' own engine, and parse what dashboards
// ask for. It is a module of its own, so that nothing else depends on
// Prometheus, and promtool need not be compiled.
package promrules
