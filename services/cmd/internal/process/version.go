package process

import "runtime/debug"

// What the linker is told of a release and of images, which are built apart
// from the repository's history. Nothing else writes them.
var version, revision string

// Version is what was built: what the linker was told, else the module's
// version, else the commit.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if commit := Revision(); commit != "" {
		return "devel-" + commit[:min(len(commit), 12)]
	}
	return "devel"
}

// Revision is the commit of what was built, empty where it is not known.
func Revision() string {
	if revision != "" {
		return revision
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
