// Package tiltfile holds what the Tiltfile at the root of the repository
// declares: evaluated by a Starlark interpreter whose built-ins record their
// arguments, where no Tilt is installed, and run by the real Tilt where
// STORMBELL_TILT names one. The scripts beside it are what its resources run.
package tiltfile
