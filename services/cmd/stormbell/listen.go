package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stormbell/stormbell/services/internal/seal"
)

// listenLease is how long the subscription outlives a listener that was killed;
// it is renewed at half of it.
const listenLease = 10 * time.Minute

// listenFlags are those of `webhooks listen` that the receiver does not need.
type listenFlags struct {
	listen, public, secretFile string
	chosen                     *filter
}

func newWebhooksListen(env *environment, conn *connection) *cobra.Command {
	var f listenFlags
	r := &receiver{env: env, seen: make(map[string]seen), full: make(chan struct{})}
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive alerts here for as long as this command runs, verify and print each",
		Long: "Receive alerts here for as long as this command runs, verify and print each.\n" +
			"It makes a webhook with a secret of its own, which is removed when the command ends\n" +
			"(and ends by itself some minutes later if the command was killed).\n\n" +
			"--forward passes each verified message on as it came, signature and all, and answers as the receiver there does:\n" +
			"what that one refuses is sent again. It verifies with the secret of --secret-file.\n" +
			"--fail 500,3 answers 500 to the first 3 attempts, to see how they are repeated.",
		Example: "  stormbell webhooks listen --min-level high\n" +
			"  stormbell webhooks listen --forward http://127.0.0.1:3000/hooks --secret-file hook.secret\n" +
			"  stormbell webhooks listen --fail 500,1 --print-headers",
		Args: arguments(0, 0),
	}
	f.chosen = filterFlags(cmd, conn)
	r.output = outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:0", "host and port to receive on")
	flags.StringVar(&f.public, "public-url", "", "URL under which the notifier reaches this receiver (default: http and the --listen address)")
	flags.StringVar(&f.secretFile, "secret-file", "", "file with the signing secret, whsec_…; made (mode 0600) if it is not there (default: a secret that nobody sees)")
	flags.StringVar(&r.forward, "forward", "", "URL to pass each verified message on to")
	flags.BoolVar(&r.headers, "print-headers", false, "print the headers of each message too")
	flags.Var(&r.fail, "fail", "status to answer, and to how many attempts: 500,3")
	flags.IntVar(&r.count, "count", 0, "end after this many alerts (default: at Ctrl-C)")
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		if err := checkForward(r.forward); err != nil {
			return err
		}
		return r.run(ctx, gateway, &f)
	})
	return cmd
}

func checkForward(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return usagef("--forward: use http://HOST:PORT/PATH or https://HOST/PATH")
	}
	return nil
}

// run subscribes, and receives until ctx ends or there is enough.
func (r *receiver) run(ctx context.Context, gateway *client, f *listenFlags) (err error) {
	secret, err := listenSecret(f.secretFile)
	if err != nil {
		return err
	}
	if r.verify, err = standardwebhooks.NewWebhook(secret.Reveal()); err != nil {
		return fmt.Errorf("%s does not hold a signing secret, which begins with whsec_: %w", f.secretFile, err)
	}
	socket, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("open the receiver, choose another address with --listen: %w", err)
	}
	r.client = &http.Client{
		Transport:     &http.Transport{IdleConnTimeout: time.Minute},
		Timeout:       forwardTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer r.client.CloseIdleConnections()
	server := &http.Server{Handler: http.HandlerFunc(r.receive), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = server.Serve(socket) }) // ends with Close
	defer func() { _ = server.Close() }()
	public := f.public
	if public == "" {
		public = "http://" + socket.Addr().String() + "/"
	}
	host, _ := os.Hostname()
	until := time.Now().Add(listenLease).UTC()
	var made webhook
	if err := gateway.call(ctx, http.MethodPost, "/v1/webhooks", webhookRequest{
		Name: "listen on " + host, URL: public, Secret: secret.Reveal(), Filter: f.chosen, ExpiresAt: &until,
	}, &made); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if gone := gateway.remove(ctx, "/v1/webhooks", made.ID); gone != nil {
			err = errors.Join(err, fmt.Errorf("the temporary webhook %s is not removed, and ends by itself within %s: %w", made.ID, listenLease, gone))
		}
	}()
	fmt.Fprintf(r.env.err, "Listening on %s as webhook %s. Ctrl-C ends and removes it.\n", public, made.ID)
	return r.hold(ctx, gateway, "/v1/webhooks/"+url.PathEscape(made.ID))
}

// hold keeps the subscription alive until there is enough, or ctx ends.
func (r *receiver) hold(ctx context.Context, gateway *client, path string) error {
	renew := time.NewTicker(listenLease / 2)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.full:
			return nil
		case <-renew.C:
			until := time.Now().Add(listenLease).UTC()
			if err := gateway.call(ctx, http.MethodPatch, path, webhookRequest{ExpiresAt: &until}, nil); err != nil && ctx.Err() == nil {
				fmt.Fprintf(r.env.err, "stormbell: the temporary webhook is not renewed: %v\n", err)
			}
		}
	}
}

// listenSecret is a new secret, or that of a file, which is made where there is
// none.
func listenSecret(path string) (seal.Secret, error) {
	if path != "" {
		text, err := os.ReadFile(path)
		if err == nil {
			return seal.NewSecret(strings.TrimSpace(string(text))), nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return seal.Secret{}, fmt.Errorf("read signing secret: %w", err)
		}
	}
	raw := make([]byte, 24)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the process instead
	secret := "whsec_" + base64.StdEncoding.EncodeToString(raw)
	if path != "" {
		if err := seal.WriteNew(path, []byte(secret+"\n")); err != nil {
			return seal.Secret{}, fmt.Errorf("write signing secret: %w", err)
		}
	}
	return seal.NewSecret(secret), nil
}
