// Package front answers signed calls over HTTP/1.1 at a fraction of what net/http
// costs, and leaves everything else to net/http.
//
// The SDKs send most calls in one form: POST / with a Content-Length, a dozen
// headers and a small body. For that form alone the front reads the request whole,
// hands the same http.Request that net/http would make to the same handler, and
// writes the reply at once. It starts no goroutine a request, sets no deadline and
// wakes nobody: one sweep a second looks after all connections.
//
// A connection whose next request is of any other form (another method or path,
// chunked, Expect, Upgrade, Connection: close, a header twice, a byte that is no
// printable ASCII, too large, too slow, malformed) is handed over to net/http's
// server, with the bytes that were read, and stays there. The front refuses
// nothing itself and has no view of its own of what is a valid request: what it
// takes is a subset of what net/http takes, read alike (FuzzRequest holds one to
// the other), so that no two parts of the system can see different requests in the
// same bytes.
//
// What a handler may count on is what net/http promises: the context ends when the
// handler returns and, within two seconds, when the client goes away; a panic
// closes the connection. What it may not: keep the request's header or body after
// it returned (they are used again), send informational replies, flush, hijack,
// or stream without end, for the reply is gathered and then sent.
//
// Time limits are those of the http.Server: ReadHeaderTimeout bounds the first
// byte of a connection, its TLS handshake, the time from the first byte of a
// request to the last, and each 64 KiB of a reply; IdleTimeout bounds the time
// between requests. They are kept to a second or two.
package front
