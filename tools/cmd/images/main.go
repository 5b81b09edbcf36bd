// Command images compiles Stormbell's programs and makes container images of
// them; it needs no container engine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/stormbell/stormbell/tools/images"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o images.Order
	flag.StringVar(&o.Source.Module, "services", "services", "directory of the module services")
	flag.StringVar(&o.Out, "out", "deployments/docker/out", "directory that the images are written to")
	flag.StringVar(&o.Registry, "registry", "stormbell", "what stands before the names of the images")
	flag.StringVar(&o.Tag, "tag", "dev", "tag of the images")
	flag.StringVar(&o.Source.Version, "version", "devel", "version that the programs report")
	flag.StringVar(&o.Source.Revision, "revision", "", "commit that the programs report")
	flag.BoolVar(&o.Push, "push", false, "push to the registry")
	quick := flag.String("quick", "", "push one program's image for this machine's architecture under this name, and do nothing else")
	platforms := flag.String("platforms", "linux/amd64,linux/arm64", "platforms, separated by commas")
	created := flag.Int64("created", 0, "time that the images report, in seconds: that of the commit")
	flag.Parse()
	o.Names = flag.Args()
	if *quick != "" {
		return pushQuick(ctx, o.Source, o.Names, *quick)
	}
	o.Meta = images.Meta{Version: o.Source.Version, Revision: o.Source.Revision, Created: time.Unix(*created, 0).UTC()}
	for text := range strings.SplitSeq(*platforms, ",") {
		p, err := images.ParsePlatform(text)
		if err != nil {
			return err
		}
		o.Platforms = append(o.Platforms, p)
	}
	made, err := images.Make(ctx, o)
	if err != nil {
		return err
	}
	for _, m := range made {
		fmt.Printf("%s %s", m.Digest, m.Ref)
		for _, p := range o.Platforms {
			fmt.Printf(" %s %.1f MB", p, float64(m.Bytes[p])/1e6)
		}
		fmt.Println()
	}
	return nil
}

func pushQuick(ctx context.Context, source images.Source, names []string, ref string) error {
	if len(names) != 1 {
		return errors.New("-quick: name one program")
	}
	return images.Quick(ctx, source, names[0], images.Platform{OS: "linux", Arch: runtime.GOARCH}, ref) //nolint:wrapcheck // it says what failed
}
