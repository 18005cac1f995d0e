// Package directory is AWS Directory Service (ds) and Directory Service Data
// (ds-data): directories, their users and groups, and the SIDs that encryption
// contexts name.
//
// # Promises
//
//   - A directory has one domain SID, S-1-5-21-x-y-z, drawn at random when it is
//     created. A user or group gets the next relative ID (from 1103 up) and keeps
//     it; no RID is given twice in a directory, not even after its owner was
//     deleted. So a data key that was sealed for a user opens for nobody else, not
//     even for a later user of the same name.
//   - sAMAccountName is unique in a directory, over users and groups, whatever the
//     case of its letters.
//   - Passwords are kept as Argon2id hashes (RFC 9106), wrapped by the root key:
//     the store alone does not allow to try passwords. They are never recorded,
//     logged or returned.
//   - ds-data calls are authorised twice, as AWS does: ds-data:<Operation> and
//     ds:AccessDSData on the directory, and the directory's data access must be on.
//   - A Microsoft AD with RADIUS enabled (EnableRadius) has a second factor: its
//     servers are asked about a code (package radius). The shared secret is kept
//     wrapped by the root key (purpose "directory/radius", bound to the directory's
//     key) and never shown. RadiusStatus is Completed once a server answered with
//     it, to a user who does not exist, and Failed when none did; the code is asked
//     for either way.
//   - A snapshot (CreateSnapshot) is all users, groups, memberships and passwords of a
//     directory at one moment; RestoreFromSnapshot makes it hold exactly these. The next
//     relative ID never goes back: a user made since the snapshot is gone, and its SID is
//     given to nobody. Passwords in snapshots stay wrapped by the root key.
//   - Repeating a call with its ClientToken within 8 hours gives the same reply and
//     changes nothing more.
//
// # What is different from AWS
//
// The driver is embedded: it stores users and mints SIDs, and serves neither
// LDAP, Kerberos nor DNS, so nothing answers at DnsIpAddrs. ds-data works on
// Simple AD as well (AWS: Managed Microsoft AD only), and data access is on from
// the start, so that CreateDirectory is followed by CreateUser without ceremony;
// DisableDirectoryDataAccess turns it off. A new user is enabled and has no
// password: nobody can sign in as it until ds:ResetUserPassword. SearchString
// matches the beginning of an attribute, without regard to case (AWS's page does
// not say). VpcSettings are optional and are remembered, not used. The members
// that a group has by primaryGroupID (Domain Users) are not listed, as in LDAP.
//
// # Stored password, version 1
//
// Table directory/password holds keyring-wrapped (purpose "directory/password",
// bound to the record's key) text in PHC form:
//
//	$argon2id$v=19$m=19456,t=2,p=1$<salt, 16 bytes>$<hash, 32 bytes>
//
// with standard base64 without padding. m, t and p are those OWASP's "Password
// Storage Cheat Sheet" names; they are read back from the text, so that they can
// be raised later.
package directory
