// Package volumed is the process that alone holds plaintext volume keys: it opens
// volumes with keys handed to it, serves each over NBD (and vhost-user-blk) on unix sockets, and wipes the
// key when the volume is detached. It outlives the control plane, which finds what is
// attached with Client.List after a restart.
//
// What it promises:
//
//   - A key arrives in the secret part of one frame on the control socket, never in an
//     argument, the environment, a file or the log. The buffers it passed through are
//     wiped on both sides. It is kept as long as the volume is attached.
//   - The process writes no core dump, cannot be traced or read through /proc by others of its
//     user (PR_SET_DUMPABLE 0), and locks its memory where it may.
//   - Only processes of the same user may use the control socket (mode 0600, and SO_PEERCRED on both ends).
//   - SIGTERM flushes and closes every volume and wipes every key before it ends; so does the removal of its control socket,
//     after which nobody could reach it.
//   - After kill -9 nothing that was answered to a guest is lost. A new process knows no
//     keys: the control plane attaches again with the same NBD socket path, whose stale
//     file is replaced, and QEMU's reconnect-delay finds it there. A vhost-user front end
//     connects again too, and what was on its way is worked then (package vhostuser).
//
// # Control protocol, version 1
//
// One request on each connection; the reply (and before it any number of events)
// comes back on it. Closing the connection cancels a running Import, Hydrate or Watch.
// Every message is one frame, integers big endian:
//
//	 0  magic "SDVC"
//	 4  version u16 = 1
//	 6  type u16          request 1…, reply 0x8000 ok, 0x8001 error, 0x8002 event
//	 8  body length u32   at most 1 MiB, JSON
//	12  secret length u32 at most 4 KiB, the data key, behind the body
//	16  body, secret
//
// A peer of another version is answered with an error frame of version 1.
package volumed
