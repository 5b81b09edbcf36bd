package process

import "runtime/debug"

// Version is what was built: the module's version, else the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	version := "devel"
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version += "-" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return version
}
