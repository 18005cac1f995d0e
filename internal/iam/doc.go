// Package iam is AWS Identity and Access Management: the users, groups, roles,
// policies and long-term access keys of each account, and what the gateway asks
// about them (api.Identities).
//
// # Promises
//
//   - IAM is global: state belongs to an account, not to a region, and its
//     records carry the region us-east-1.
//   - Names are unique within an account without regard to case and are shown as
//     they were first written.
//   - A principal is known by its unique ID (AIDA…, AROA…). One that was deleted
//     and made again under the same name is another principal: its old
//     credentials and sessions have no permissions.
//   - A secret access key leaves this package once, in CreateAccessKey's reply.
//     At rest it is wrapped by the root key (purpose "iam/secret-access-key",
//     bound to account and key ID); MFA seeds likewise ("iam/mfa-seed").
//     Passwords are kept as Argon2id hashes only, those of service-specific
//     credentials, which are 32 random bytes, as SHA-256. The private key of a
//     server certificate is checked and not kept.
//   - References between records (a group's members, a policy's attachments) are
//     counted in the record referred to, so that a delete and a concurrent
//     attach conflict in the store and one of them is refused.
//
// # Records
//
// All keys begin with the account, names are lower case:
//
//	iam/account           account
//	iam/alias             alias (unique among all accounts)
//	iam/user, group, role, policy, profile
//	                      account/name
//	iam/access-key        account/AKIA…
//	iam/last-used         account/AKIA… or account/AROA…, and
//	                      account/AIDA…/service or account/AROA…/service
//	iam/access-report     account/job ID
//	iam/mfa               account/name of the device
//	iam/provider          account/oidc/host/path or account/saml/name
//	iam/server-certificate
//	                      account/name
//
// Each is JSON of the struct of that name in tables.go, version 1.
package iam
