package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/internal/seal"
)

const (
	defaultURL      = "http://127.0.0.1:8080"
	maxAnswerBytes  = 64 << 20
	maxKeyFileBytes = 4 << 10
)

// connection is how a command reaches a gateway.
type connection struct {
	env      *environment
	url      string
	keyFile  string
	insecure bool
	timeout  time.Duration
}

// connect adds the flags of a connection to a command.
func connect(env *environment, cmd *cobra.Command) *connection {
	c := &connection{env: env, timeout: time.Minute}
	base := env.getenv("STORMBELL_URL")
	if base == "" {
		base = defaultURL
	}
	f := cmd.PersistentFlags()
	f.StringVar(&c.url, "url", base, "gateway to talk to (or STORMBELL_URL)")
	f.StringVar(&c.keyFile, "key-file", "", "file that holds the API key (else STORMBELL_API_KEY, else api-key in the default data directory)")
	f.BoolVar(&c.insecure, "insecure", false, "send the key unencrypted to another machine")
	f.Lookup("url").DefValue = defaultURL
	return c
}

// client is a gateway's API with a key.
type client struct {
	base *url.URL
	key  seal.Secret
	from string // where the key was found, for messages
	http *http.Client
}

// apiError is an answer that is not a success.
type apiError struct {
	Status     int
	Code       string `json:"code"`
	Title      string `json:"title"`
	Detail     string `json:"detail"`
	RequestID  string `json:"request_id"`
	Errors     []struct{ Field, Reason string }
	Rejected   []rejection `json:"rejected"`
	Truncated  int         `json:"rejected_truncated"`
	retryAfter time.Duration
}

// rejection is one record that a gateway refused.
type rejection struct {
	Index  int    `json:"index"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (e *apiError) Error() string {
	text := e.Detail
	if text == "" {
		text = e.Title
	}
	for _, field := range e.Errors {
		text += "; " + field.Field + " " + field.Reason
	}
	return printable(fmt.Sprintf("the gateway answered %d: %s", e.Status, strings.TrimPrefix(text, "; ")))
}

// open reads the key and checks that it may be sent there.
func (c *connection) open() (*client, error) {
	base, err := url.Parse(c.url)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, usagef("--url %q: use http://HOST:PORT or https://HOST", c.url)
	}
	if base.User != nil {
		return nil, usagef("--url must not hold a user: keys come from a file or STORMBELL_API_KEY")
	}
	if base.Scheme == "http" && !c.insecure && !isLoopback(base.Hostname()) {
		return nil, usagef("--url %s would send the API key unencrypted to another machine: use https, or --insecure", base.Redacted())
	}
	key, from, err := c.key()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		ForceAttemptHTTP2:   true,
	}
	return &client{base: base, key: key, from: from, http: &http.Client{
		Transport: transport,
		Timeout:   c.timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the gateway redirects, and a key must not follow: use the address that it redirects to as --url")
		},
	}}, nil
}

// with is what a command that talks to a gateway runs: it reads the key, opens
// a client for do, and closes it.
func (c *connection) with(do func(ctx context.Context, gateway *client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		gateway, err := c.open()
		if err != nil {
			return err
		}
		defer gateway.close()
		return do(cmd.Context(), gateway, args)
	}
}

// key reads the key and says where from.
func (c *connection) key() (key seal.Secret, from string, err error) {
	path := c.keyFile
	if path == "" {
		if key := strings.TrimSpace(c.env.getenv("STORMBELL_API_KEY")); key != "" {
			return seal.NewSecret(key), "STORMBELL_API_KEY", nil
		}
		path = filepath.Join(c.env.dataDir(), "api-key")
	}
	f, err := os.Open(path)
	if err != nil {
		if c.keyFile == "" && errors.Is(err, os.ErrNotExist) {
			return key, "", fmt.Errorf("no API key: %s does not exist, which the first `stormbell up` makes: name a key with --key-file or STORMBELL_API_KEY", path)
		}
		return key, "", fmt.Errorf("open API key: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes))
	if err != nil {
		return key, "", fmt.Errorf("read API key: %w", err)
	}
	line := strings.TrimSpace(string(text))
	if line == "" || strings.ContainsAny(line, " \t\r\n") {
		return key, "", fmt.Errorf("%s does not hold an API key, which is one line that begins with sbk_", path)
	}
	return seal.NewSecret(line), path, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// close drops idle connections.
func (c *client) close() { c.http.CloseIdleConnections() }

// get reads a value.
func (c *client) get(ctx context.Context, path string, into any) error {
	return c.call(ctx, http.MethodGet, path, nil, into)
}

// remove takes one thing of a collection away.
func (c *client) remove(ctx context.Context, collection, id string) error {
	return c.call(ctx, http.MethodDelete, collection+"/"+url.PathEscape(id), nil, nil)
}

// call sends a value as JSON, unless it is nil, and reads the answer into into,
// unless that is nil. Answers that are not a success are an *apiError.
func (c *client) call(ctx context.Context, method, path string, send, into any) error {
	var body io.Reader
	header := make(http.Header)
	if send != nil {
		text, err := json.Marshal(send)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
		header.Set("Content-Type", "application/json")
	}
	return c.do(ctx, method, path, header, body, into)
}

func (c *client) do(ctx context.Context, method, path string, header http.Header, body io.Reader, into any) error {
	answer, err := c.stream(ctx, method, path, header, body)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }() // it is read to its end
	text, err := io.ReadAll(io.LimitReader(answer, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	if into == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s does not answer like a Stormbell gateway: check --url", c.base.Redacted())
	}
	return nil
}

// stream returns the body of an answer that is a success, which the caller
// closes.
func (c *client) stream(ctx context.Context, method, path string, header http.Header, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base.String(), "/")+path, body)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	req.Header = header
	req.Header.Set("Authorization", "Bearer "+c.key.Reveal())
	req.Header.Set("User-Agent", "stormbell/"+version())
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }() // it is read to its end
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("read the gateway's answer: %w", err)
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return nil, fmt.Errorf("%w (the key is that of %s: name another with --key-file or STORMBELL_API_KEY)", problemOf(resp, text), c.from)
	}
	return nil, problemOf(resp, text)
}

// unreachable says why there is no answer, and what helps.
func (c *client) unreachable(err error) error {
	if about, ok := errors.AsType[*url.Error](err); ok {
		err = about.Err // method and address are said better here
	}
	base := c.base.Redacted()
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no gateway answers at %s: start one with `stormbell up`, or name another with --url or STORMBELL_URL: %w", base, err)
	case errors.As(err, &network) && network.Timeout():
		return fmt.Errorf("the gateway at %s does not answer in time: check --url, or try again: %w", base, err)
	}
	return fmt.Errorf("reach the gateway at %s: %w", base, err)
}

func problemOf(resp *http.Response, text []byte) error {
	e := new(apiError)
	if json.Unmarshal(text, e) != nil || (e.Title == "" && e.Detail == "") {
		e = &apiError{Title: http.StatusText(resp.StatusCode)}
	}
	e.Status = resp.StatusCode
	if after, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s"); err == nil && after > 0 {
		e.retryAfter = min(after, 5*time.Minute)
	}
	return e
}
