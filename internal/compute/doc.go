// Package compute runs desktops: virtual machines that boot from a volume served over NBD and show a screen.
//
// It promises:
//
//   - A machine outlives the process that started it. A Driver that is closed, killed or restarted leaves its machines running, and
//     Adopt finds every one of them again and nothing that is not one of them.
//   - A lost disk pauses the machine and does not hurt the guest; when the disk is served again at the same place, the machine goes on.
//   - Nothing secret is put in an argument list, an environment, a log or a file that stays: a password hash reaches the guest
//     through a file only its owner can read, removed once the machine holds it.
//   - The screen is on a unix socket in the machine's directory, never on TCP. The network has no way out unless the Spec names a bridge.
//   - Events are hints and may be lost (a driver may be down when they happen); Status is the truth. Whoever acts on an Event asks
//     Status first.
//
// The package knows no AWS and no store: names, paths and bytes. Drivers are qemu (real) and fake (in memory, with fault hooks);
// computetest holds what both must do.
//
// # The seed
//
// What a guest is told at power-on is one JSON object, handed over as the QEMU firmware configuration file
// "opt/org.sealdesk/seed" (QEMU docs/specs/fw_cfg, "Externally Provided Items"); a Linux guest reads it at
// /sys/firmware/qemu_fw_cfg/by_name/opt/org.sealdesk/seed/raw. Keys are sorted, one a line, so that a shell can read it too:
//
//	+-----------------+--------+----------------------------------------------------------+
//	| version         | number | 1                                                        |
//	| machine         | string | Spec.ID                                                  |
//	| user            | string | Seed.UserName                                            |
//	| full_name       | string | Seed.FullName                                            |
//	| password_hash   | string | Seed.PasswordHash, crypt(5) form; "" = no password login |
//	| hostname        | string | Seed.Hostname                                            |
//	| time_zone       | string | Seed.TimeZone, IANA name                                 |
//	| keyboard_layout | string | Seed.KeyboardLayout, XKB name, e.g. "us" or "de"         |
//	| locale          | string | Seed.Locale, e.g. "C.UTF-8"                              |
//	| width, height   | number | Display                                                  |
//	+-----------------+--------+----------------------------------------------------------+
//
// No value holds a control character, a double quote or a backslash (Validate refuses them), so that every value stands in the file as it is.
//
// # The agent channel
//
// The guest speaks over the virtio-serial port "org.sealdesk.agent.0", one JSON object a line, at most 4096 bytes. The guest
// sends its state whenever that changes and whenever it is asked; the host asks by sending "status\n".
//
//	guest -> host  {"v":1,"state":"booting"|"desktop-ready"|"failed","boot":"<boot id>","uptime_ms":N,"detail":"..."}
//	host -> guest  status
//	host -> guest  resize WIDTH HEIGHT     take the largest screen mode that fits
//	host -> guest  keyboard LAYOUT         XKB name, [a-z]{2,8}
//
// A guest ignores a line it does not know.
//
// # The clipboard
//
// The virtio-serial port "com.redhat.spice.0" joins the clipboard of the guest (spice-vdagent) with that of whoever is connected to the
// screen, by QEMU's clipboard core; whether text passes is for the one who relays the screen to decide.
package compute
