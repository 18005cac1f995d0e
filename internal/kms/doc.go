// Package kms is the key service: AWS Key Management Service's API with the
// meaning AWS gives it.
//
// # Promises
//
//   - A key's material never leaves the package in the clear, except as what an
//     operation is asked for (a plaintext data key, a decrypted message). At rest
//     it is wrapped under the root key (package keyring), in memory it is
//     secret.Bytes in a cache that is emptied when the key is deleted.
//   - Every use of a key is authorised by its key policy, by IAM where the key
//     policy delegates to it, or by a grant; see authz.go and grantauth.go.
//   - A change is in force when the call that made it returns: no call that
//     begins after the reply to RevokeGrant, RetireGrant, DisableKey or
//     PutKeyPolicy is decided on the old state.
//   - A symmetric ciphertext opens only under the key material that made it and
//     with the same encryption context; anything else is
//     InvalidCiphertextException and nothing more.
//
// # Ciphertext of a symmetric key, version 1
//
//	offset  size  field
//	     0     1  version = 1
//	     1     1  flags: bit 0 set when the key is a multi-Region key ("mrk-")
//	     2     8  account, big endian
//	    10    16  key ID: the UUID's bytes, or the 16 bytes after "mrk-"
//	    26    32  key material ID
//	    58    32  N, random
//	    90     8  check: first 8 bytes of SHA-256(offset 0..89)
//	    98   n+16  AES-256-GCM(K, nonce zero, plaintext of n bytes, AAD)
//
//	K   = HKDF-Expand-SHA256(key material, "sealdesk kms ciphertext 1" ‖ N, 32)
//	AAD = offset 0..97 ‖ canonical encryption context
//
// The canonical encryption context is the number of pairs, then for each pair in
// ascending byte order of the keys: length of key, key, length of value, value;
// each number 4 bytes big endian. No two different contexts have the same form.
//
// N makes every message use a key of its own exactly once, so GCM's limit on
// messages a key (2^32 with random nonces) does not apply; what limits a key is
// the chance that two N collide, 2^-64 after 2^96 messages. One message is at
// most 4096 bytes (6 KiB for data key pairs), far below GCM's 2^36 bytes.
//
// The check field is no authentication (the GCM tag is): it separates a damaged
// blob, which is InvalidCiphertextException whatever was damaged, from a whole
// blob that names a key the caller cannot use, which is AccessDeniedException.
//
// Ciphertext of an asymmetric key is the bare RSAES-OAEP output, as AWS's is.
//
// # Ciphertext of a key in a custom key store
//
// The header, offset 0..97, is that of version 1 with another version. It is
// followed by
//
//	version 2, CloudHSM key store: what the token has sealed (package pkcs11), AAD H
//	version 3, external key store: what the proxy has sealed (package xks, Sealed),
//	          AAD H, of AES-256-GCM(K, nonce zero, plaintext, AAD) as in version 1
//
//	H = SHA-256(AAD of version 1)
//
// Version 3 is encrypted twice: neither the external key nor the key material here
// opens it alone. The token draws a random nonce for each message, so a key in a CloudHSM key
// store is good for 2^32 messages (NIST SP 800-38D section 8.3).
//
// # Grant token, version 1
//
//	offset  size  field
//	     0     1  version = 1
//	     1     1  flags: bit 0 set when the key is a multi-Region key
//	     2     8  account, big endian
//	    10    16  key ID
//	    26    32  grant ID
//	    58    16  random, so that no two tokens are equal
//	    74    16  HMAC-SHA256(the grant's seed, offset 0..73), cut
//
// printed in base64 (RFC 4648 section 4). The seed is kept with the grant, so a
// token dies with its grant.
package kms
