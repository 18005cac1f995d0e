// Package sts is AWS Security Token Service: temporary credentials for roles,
// users and federated users, and who the caller is.
//
// # Promises
//
//   - Nothing is stored for a session. The session token is the session, sealed;
//     any node of the installation opens it, and no one else can make or read one.
//   - A session ends at its expiry, and earlier when its user or role is deleted,
//     even if another of the same name is made.
//   - What a session may do is decided anew at every call: policies, boundary and
//     tags are those of the user or role at that moment.
//   - AssumeRoleWithWebIdentity believes a token only when its signature is by a key
//     that the issuer publishes, fetched over HTTPS from a server that a CA of this
//     host or a thumbprint of the account's OIDC provider vouches for; it is asked
//     only for providers that an account has made. Of the providers that need no
//     record in AWS (Google, Facebook, Amazon, Cognito) no token is taken.
//   - AssumeRoleWithSAML reads of a response only what a certificate of the
//     provider's metadata signed. Encrypted assertions are not taken.
//
// # Session token, version 1
//
// The standard base64 of:
//
//	+---------+----------+----------+---------------------+
//	| version | key ID   | salt     | sealed              |
//	| 1 byte  | 8 bytes  | 32 bytes | plaintext + 16      |
//	+---------+----------+----------+---------------------+
//
// sealed is AES-256-GCM under HKDF-SHA256(secret: the sealing key of that ID,
// salt, info: "sealdesk sts session 1"), nonce zero, additional data: version ‖
// key ID ‖ salt. Each token has a fresh 256-bit salt and so a key of its own,
// which makes the fixed nonce safe and the number of tokens no matter.
//
// plaintext is the raw DEFLATE of the JSON of the session type in token.go,
// followed by zero bytes up to the size that was asked for
// (MinimumSessionTokenSize). A token has at most 4096 characters.
//
// Authorization messages (DecodeAuthorizationMessage) have the same form with
// info "sealdesk sts message 1" and the message's JSON as DEFLATE plaintext.
//
// # Sealing keys
//
// The table sts/seal-key holds each key under its ID in hexadecimal, wrapped by
// the root key (purpose "sts/seal-key", additional data the ID). The newest seals;
// all open. A new one is made when the newest is 30 days old, and keys that no
// live token can need any more are deleted then.
package sts
