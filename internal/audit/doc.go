// Package audit is the record of every call: what a CloudTrail record holds, how
// it becomes durable before the reply, and the chained log that shows tampering.
//
// # Promises
//
//   - When Append returns nil the record is on stable storage (Fsynced, the
//     default) or handed to the operating system (Written: it survives a kill -9
//     and not a power cut), and Lookup finds it.
//   - A record given to Outbox is committed with the transaction it describes, or
//     not at all, and reaches the log exactly once, whatever is killed when.
//   - Every record is chained to all before it. Verify names a record that was
//     changed, removed, inserted, moved or cut off; a rewritten chain does not
//     match the signed checkpoints, and a log cut short does not reach the head
//     that is pinned in the store.
//   - After a failed write or sync nothing is accepted any more: what is on the
//     disk is unknown, and the log stops rather than guess. A restart reads it
//     again.
//
// # Format, version 1
//
// docs/formats/audit-log.md describes it for auditors, with the commands that
// check it by hand. A log is a directory:
//
//	segment-<first sequence number, 20 digits>.jsonl   the records
//	segment-<first sequence number, 20 digits>.idx     index of a sealed segment; can be rebuilt
//	checkpoints.jsonl                                  signed heads
//	checkpoint-key.pem                                 the public key (PKIX, Ed25519), for convenience
//
// A segment begins with a header line, exactly
//
//	{"format":"sealdesk audit log","version":1,"log":"<id>","first":<seq>,"prev":"<hash>"}\n
//
// and goes on with one line a record, exactly
//
//	{"seq":<n>,"prev":"<hash>","record":<record>,"hash":"<hash>"}\n
//
// where <record> is the CloudTrail record, a JSON object without a newline, <n> is a
// decimal number without leading zeros, one more than that of the line before, and a
// <hash> is 64 lower-case hexadecimal digits:
//
//	hash = SHA-256( 0x01 ‖ n (8 bytes, big-endian) ‖ prev (32 bytes) ‖ SHA-256(<record>) )
//
// prev is the hash of the line before, over the ends of segments; that of record 1 is
// SHA-256("sealdesk audit log 1" ‖ 0x00 ‖ <id>). No other byte is allowed anywhere, so
// every byte of a segment is checked.
//
// A checkpoint is one line, exactly
//
//	{"version":1,"log":"<id>","seq":<n>,"hash":"<hash>","time":"<RFC 3339, UTC>","previous":"<hash>","key":"<hash>","signature":"<base64>"}\n
//
// where hash is that of record n, previous the SHA-256 of the checkpoint line before
// (without its newline; 64 zeros in the first), key the SHA-256 of the public key
// (PKIX, DER), and signature is Ed25519 over
//
//	"sealdesk audit checkpoint 1\n" <id> "\n" <n> "\n" <hash> "\n" <time> "\n" <previous> "\n"
//
// # Index of a sealed segment, version 1
//
// All numbers are big-endian; an index that does not check out is built anew from
// its segment and is no evidence of anything.
//
//	+--------+---------+-------+-------+---------+---------+-----------+--------------+-------------+-------+--------+
//	| "SDAX" | version | count | first | minTime | maxTime | last hash | segment size | bloom bytes | bytes | CRC32C |
//	| 4      | 4       | 4     | 8     | 4       | 4       | 32        | 8            | 4           | 4     | 4      |
//	+--------+---------+-------+-------+---------+---------+-----------+--------------+-------------+-------+--------+
//	| bloom filter | entries, newest first (event time, then sequence number) | CRC32C of filter and entries |
//
//	entry: | offset | length | event time | seq-first | scope | n | n × attribute |   each 4 bytes
//
// Times are Unix seconds; scope and attribute are the low 32 bits of xxHash64 of
// "account/region" and of the attribute's kind byte and value. A match is checked
// against the record itself.
package audit
