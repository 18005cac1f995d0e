// Package console serves the two faces for people: the management console
// (/console/) and the portal where users reach their desktops (/portal/), and it
// relays the desktops' screens (/desktops/{session}/ws).
//
// What it promises:
//
//   - The console has no private door. What this package gives a browser after
//     sign-in is temporary credentials; everything else the browser does with the
//     public APIs, signed, authorised and recorded like any other call.
//   - Sign-in takes a password (and MFA code), or a SigV4 signature by a
//     long-term access key: the secret key never crosses the wire. Every
//     attempt is recorded (ConsoleLogin) before it is answered.
//   - State-changing requests need the page's own Origin and a JSON body; cookies
//     are HttpOnly and SameSite=Strict, and hold 256 random bits of which only
//     the SHA-256 is stored.
//   - A session that was revoked has no credentials left: Revoked tells the
//     gateway about every access key it was given.
//   - A screen is shown to nobody but its user: a connection needs a token of 256
//     bits, good once, for 60 seconds, for one user SID, one WorkSpace, one
//     client address and one Origin. While it lasts, the connection is
//     cut as soon as the user is disabled, the desktop leaves AVAILABLE, the
//     address is no longer allowed, or the user signs out.
//   - Text is copied to and from a desktop only as its directory lets it; the
//     relay drops the rest, message by message, and follows a change at once.
//   - Pages load nothing from elsewhere and run no inline script
//     (Content-Security-Policy).
//
// # Stored records
//
//	console/session   <SHA-256 of the cookie, hex>   who signed in, until when, with which access keys
//	console/ticket    <SHA-256 of the token, hex>    a right to be used once: connect to a desktop, set a new password
//
// Both are deleted by Run once they are of no more use.
package console
