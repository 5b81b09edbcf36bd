package accesslog

import "bytes"

// Request adds the parts of a request line: request_method, request_url,
// request_protocol, and of the URL request_host, request_target (path and
// query), request_path, request_extension and request_query. What the client
// escaped stays escaped.
func (o *Object) Request(line []byte) {
	method, rest, found := bytes.Cut(line, []byte(" "))
	if !found {
		return
	}
	url, protocol := bytes.TrimSpace(rest), []byte(nil)
	// A URL that was not escaped may hold spaces; the protocol has none.
	if i := bytes.LastIndexByte(url, ' '); i >= 0 {
		if last := url[i+1:]; Absent(last) || bytes.HasPrefix(last, []byte("HTTP/")) {
			url, protocol = bytes.TrimSpace(url[:i]), last
		}
	}
	o.Text("request_method", method)
	if Absent(url) {
		return
	}
	o.Text("request_url", url)
	o.Text("request_protocol", protocol)
	target := url
	if _, after, absolute := bytes.Cut(url, []byte("://")); absolute && url[0] != '/' {
		host := after
		target = nil
		if i := bytes.IndexAny(after, "/?"); i >= 0 {
			host, target = after[:i], after[i:]
		}
		name, _ := HostPort(host)
		o.Text("request_host", name)
	}
	path, query, _ := bytes.Cut(target, []byte("?"))
	o.Text("request_target", target)
	o.Text("request_path", path)
	o.Text("request_extension", extension(path))
	o.Text("request_query", query)
}

// maxExtension bounds what counts as the ending of a file's name.
const maxExtension = 16

func extension(path []byte) []byte {
	name := path[bytes.LastIndexByte(path, '/')+1:]
	i := bytes.LastIndexByte(name, '.')
	if i < 0 || len(name)-i-1 > maxExtension {
		return nil
	}
	return name[i+1:]
}
