// Package keyring is the root of trust: a Root wraps what must not lie readable
// in the store (KMS key material, secret access keys, session sealing keys) under
// a root key.
//
// A Ring is the Root of a server. It has one current root key, which wraps, and
// while a rotation is under way older ones, which only unwrap. Each root key lies
// in a file of its own, sealed by a Seal:
//
//	file        not sealed at all: the file's mode (0600) is the protection. The default.
//	passphrase  under a key that Argon2id makes from a passphrase
//	pkcs11      under an AES key that never leaves a PKCS #11 token
//
// A Ring whose keys are not all open is sealed: Wrap and Unwrap return ErrSealed
// until Unseal.
//
// # Promises
//
//   - A root key is in memory only (locked there where the limits allow) between
//     Unseal and Close, and on disk only as its Seal leaves it.
//   - Rotate makes a new current key and returns; Run then wraps every value in the
//     store anew, a few records a transaction, beside everything else that goes on.
//     What is to do follows from what lies in the store and which key files exist,
//     nothing else is remembered: the process may be killed at any line and Run
//     goes on after the next start.
//   - An older key is forgotten (its file overwritten and removed) only after a
//     scan of every stored byte found nothing wrapped under it, and while no
//     transaction can bring such a value back.
//
// # Wrapped form, version 1
//
//	+---------+----------+----------+--------------------+
//	| version | root ID  | salt     | sealed             |
//	| 1 byte  | 8 bytes  | 32 bytes | plaintext + 16     |
//	+---------+----------+----------+--------------------+
//
// sealed is AES-256-GCM under the key HKDF-SHA256(secret: the root key, salt,
// info: "sealdesk root wrap 1\x00" + purpose), nonce zero, additional data:
// version ‖ root ID ‖ salt ‖ aad. Every wrap draws a fresh salt and so uses a
// fresh key exactly once; no (key, nonce) pair repeats unless two 256-bit salts
// collide, so the number of wraps is not a limit in practice (2^96 wraps give a
// collision chance of 2^-64). The root ID is the first 8 bytes of
// SHA-256("sealdesk root id" ‖ 0x00 ‖ root key).
//
// The head of a wrapped value has 9 bytes, so its base64 in a JSON record begins
// with 12 characters that tell the root key: that is what the scan looks for.
//
// # Root key file, version 1
//
// ROOT-DIR/<generation, 8 digits>.key, mode 0600, is one JSON object:
//
//	{
//	  "format": "sealdesk root key",
//	  "version": 1,
//	  "generation": 2,                   the highest is current
//	  "id": "<root ID, 16 hexadecimal digits>",
//	  "created": "<RFC 3339, UTC>",
//	  "seal": "file" | "passphrase" | "pkcs11",
//	  "parameters": { … },               of the seal, nothing secret
//	  "sealed": "<base64>",
//	  "check": "<16 hexadecimal digits>"
//	}
//
//	head   = "sealdesk root key 1\n" generation "\n" id "\n" created "\n" seal "\n" parameters "\n"
//	         (parameters as in the file, without white space)
//	check  = first 8 bytes of SHA-256(head ‖ sealed)
//
// check is no authentication; it separates a damaged file from a wrong passphrase.
//
//	seal        parameters                                   sealed
//	file        {}                                           the root key, 32 bytes
//	passphrase  {"kdf":"argon2id","memoryKiB":m,"time":t,    nonce (12) ‖ AES-256-GCM(Argon2id(passphrase, salt,
//	             "lanes":p,"salt":"<base64, 16 bytes>"}      t, m, p, 32 bytes), root key, additional data: head)
//	pkcs11      {"token":"<label>","key":"<label>"}          nonce (12) ‖ AES-256-GCM in the token, same additional data
//
// A file root.key of one line, "sealdesk-root-key-1 " and 64 hexadecimal digits, is
// the form of before; it is read as generation 0 of seal "file".
package keyring
