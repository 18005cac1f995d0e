// Package store is the one place where Sealdesk's state lives: etcd, embedded in
// the process by default, an external cluster by configuration. The same
// transactions serve both.
//
// # Promises
//
//   - Update runs a function in a serialisable transaction: what it read still
//     holds at the moment its writes become visible, or it is run again. When
//     Update returns nil the writes are on stable storage (etcd's write-ahead
//     log is synced) and visible to every later View and Update on this node.
//   - A commit whose answer is lost, because a member of an external cluster died, is
//     found out: Update returns nil when it happened and runs again when it did not.
//   - Transactions that wait for an embedded etcd at the same time are one proposal, one sync
//     and one revision; each has its own outcome, as if they came one after another.
//   - View reads one consistent snapshot from memory and never waits for etcd.
//     Another node's write is visible once its watch event has arrived.
//   - Records are shared and immutable. Get and Scan return pointers that
//     nobody may write through; change a record by putting a new one
//     (Table.Edit hands out a private copy).
//
// # Format
//
// A record is one etcd key:
//
//	/sealdesk/<table>/<key>  →  +---------+----------------------+
//	                            | version | JSON of the Go record |
//	                            | 1 byte  | UTF-8                 |
//	                            +---------+----------------------+
//
// A type with a form of its own (Form) has that in the place of JSON. version is the table's version at the time of writing; a table that has moved
// on upgrades older records as it reads them. Tables are declared, and read, in
// one service only.
package store
