package egress

import (
	"fmt"
	"net/textproto"
	"slices"
	"strings"
)

const (
	maxHeaders     = 20
	maxHeaderValue = 4096
)

// CheckHeaders judges the custom headers of a webhook: names by which
// something else is decided (who is addressed, how the connection is used,
// what was signed, which trace it belongs to) are refused, and so is whatever
// could end a header early. Errors name the header, never its value.
func CheckHeaders(headers map[string]string) error {
	if len(headers) > maxHeaders {
		return fmt.Errorf("%d custom headers: use at most %d", len(headers), maxHeaders)
	}
	for name, value := range headers {
		if err := checkHeader(name, value); err != nil {
			return err
		}
	}
	return nil
}

func checkHeader(name, value string) error {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case name == "" || len(name) > 200 || strings.ContainsFunc(name, notToken):
		return fmt.Errorf("custom header %.40q: a name holds letters, digits and hyphens", name)
	case forbiddenHeader(canonical):
		return fmt.Errorf("custom header %s may not be set", canonical)
	case len(value) > maxHeaderValue:
		return fmt.Errorf("custom header %s: %d bytes, at most %d", canonical, len(value), maxHeaderValue)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return fmt.Errorf("custom header %s: a value holds no control characters", canonical)
	}
	return nil
}

func notToken(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func forbiddenHeader(canonical string) bool {
	for _, prefix := range []string{"Proxy-", "Webhook-", "Sec-", "X-Forwarded-", "Ce-"} {
		if strings.HasPrefix(canonical, prefix) {
			return true
		}
	}
	return slices.Contains([]string{
		"Host", "Content-Length", "Content-Type", "Content-Encoding", "Date", "User-Agent", "Expect",
		"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Forwarded", "Via", "Traceparent", "Tracestate", "Baggage", "B3", "Uber-Trace-Id",
	}, canonical)
}
