// Package qemu is the compute.Driver that runs machines as QEMU processes, driven over QMP.
//
// It promises, besides what compute.Driver asks:
//
//   - Each machine is a process in a session of its own. Nothing of it ends with the process that started it.
//   - Secrets reach QEMU through memory (a memfd inherited as descriptor 3) and the screen comes back through memory (a memfd
//     passed over QMP): neither is ever a file on a disk, an argument or an environment variable. Core dumps of QEMU are off and guest
//     memory is marked not to be dumped.
//   - QEMU runs in its seccomp sandbox, without default devices, without any configuration file of the host, without TCP.
//   - A disk whose NBD server goes away holds the guest's requests for Options.ReconnectDelay; after that the machine is paused
//     (rerror=stop, werror=stop), and goes on once the server accepts connections again.
//   - A disk that has a vhost-user-blk server is worked by that server in the guest's memory (memfd, shared): less than half the processor time
//     a request. When the server goes away requests wait without a limit, and QEMU connects again every second.
//   - KVM is used only after a virtual machine really booted under it (see Probe); TCG always works.
//
// # The runtime directory
//
// Options.Dir/ID holds one machine. Paths in QEMU's arguments are relative to it, so that no path is too long for a socket address.
//
//	+-------------+-----------------------------------------------------------------------------------------+
//	| machine.json| version 1: the spec without its password hash, accelerator, start time, stop reason      |
//	| qemu.pid    | written and locked by QEMU                                                               |
//	| qmp.sock    | QMP, one client at a time                                                                |
//	| vnc.sock    | the screen, RFB                                                                          |
//	| agent.sock  | the agent channel of package compute                                                     |
//	| root.nbd    | symbolic link to the socket of the root disk's NBD server; user.nbd likewise             |
//	| root.vhost  | symbolic link to the socket of its vhost-user-blk server, if it has one; user.vhost       |
//	| serial.log  | what the guest wrote to its serial port; cut to nothing when it passes 4 MiB             |
//	| qemu.log    | what QEMU wrote                                                                          |
//	+-------------+-----------------------------------------------------------------------------------------+
//
// A process is taken for the machine only if all of these hold: its working directory is the runtime directory, its executable is a
// qemu-system binary, and its arguments name the machine.
package qemu
