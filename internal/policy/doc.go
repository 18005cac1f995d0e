// Package policy is the AWS policy language: it parses and validates policy
// documents, decides whether a request is allowed, and says why not.
//
// It is pure: no I/O, no clock, no knowledge of how identities or keys are
// stored. The caller collects the documents that apply ([Layers]) and describes
// the request ([Request]); [Evaluate] combines them by the rules of "Policy
// evaluation logic" in the IAM User Guide.
//
// # What it promises
//
//   - Nothing is allowed unless a statement (or a grant the caller vouches for)
//     allows it. A zero Request, empty Layers and a nil document allow nothing.
//   - An explicit deny in any layer wins, over grants and over the root user too.
//   - A document that parses means one thing: element names are exact, no element
//     may be given twice, and what is not understood is refused with its place.
//   - A policy variable that cannot be resolved makes an Allow statement not
//     apply and matches nothing in a condition; it never widens.
//   - Matching never backtracks: its time is bounded by the length of document
//     and request, whatever the patterns.
//   - A [Document] is immutable and may be used from many goroutines.
//
// # How the layers combine
//
// In the caller's own account and mode [ModeStandard], a request is allowed when
//
//	a resource policy allows the caller directly, or
//	(an identity policy allows, or a resource policy allows the caller's role)
//	  and the permissions boundary allows, when there is one,
//	  and a session policy allows, when the session was made with some.
//
// Directly means: by its user ARN, its session ARN, its service name, or "*".
// A resource policy that names the account delegates to IAM and allows nobody by
// itself but the root user.
//
// In [ModeKMS] and [ModeTrust] the resource policy (key policy, role trust
// policy) is a gate: identity policies count only where it allows the
// account, and root has no right of its own. In KMS a grant also allows; one to
// the caller's account counts only within what IAM allows the caller.
//
// Across accounts both sides must allow: the resource policy (by account,
// principal or "*"), and the caller's identity policies within its boundary and
// session policies; or, in KMS, a grant.
//
// Service control policies and resource control policies, when given, must
// allow at every level.
//
// Sources: IAM User Guide: "Policy evaluation logic", "Policy evaluation for
// requests within a single account", "Cross-account policy evaluation logic",
// "IAM JSON policy element reference"; KMS Developer Guide: "Key policies",
// "Troubleshooting key access", "Grants in AWS KMS".
package policy
