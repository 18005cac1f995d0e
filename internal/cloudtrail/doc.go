// Package cloudtrail is AWS CloudTrail: event history over the audit log, and
// trails that deliver it as CloudTrail log files with signed digests.
//
// # Promises
//
//   - LookupEvents finds every call, allowed or refused, of the caller's account
//     and region within 90 days, the caller's own last one included: a call is on
//     the record before it is answered. The record itself was checked against its
//     hash; one that was changed is an error, never an answer.
//   - A logging trail delivers every record of the audit log that its selectors
//     choose exactly once, in files of CloudTrail's form, also when the process is
//     killed in between.
//   - With log file validation, a signed digest every hour names every file
//     delivered since the one before, by hash, and the digest before it: a file or
//     digest that is changed, added or removed shows (ValidateLogs).
//
// # Buckets
//
// There is no S3. A bucket is a directory of its name under Config.Dir, made by the
// operator (perhaps a mount of another machine's disk, so that whoever breaks into
// this one cannot take its history back); a trail for one that is not there
// answers S3BucketDoesNotExistException. Keys of objects are paths below it. What
// S3 would keep as an object's metadata is a file beside it with the suffix
// ".metadata", a JSON object of header names and values.
//
//	AWSLogs/ACCOUNT/CloudTrail/REGION/YYYY/MM/DD/ACCOUNT_CloudTrail_REGION_YYYYMMDDTHHmmZ_UNIQUE.json.gz
//	AWSLogs/ACCOUNT/CloudTrail-Digest/REGION/YYYY/MM/DD/ACCOUNT_CloudTrail-Digest_REGION_TRAIL_HOMEREGION_YYYYMMDDTHHmmssZ.json.gz
//
// A digest is signed with RSASSA-PKCS1-v1_5 and SHA-256 over
//
//	digestEndTime \n bucket/object \n hex(SHA-256 of the digest, uncompressed) \n hex of the signature before, or "null"
//
// and the signature lies, in hexadecimal, in x-amz-meta-signature. Source: CloudTrail
// User Guide, "CloudTrail digest file structure" and "Custom implementations of
// CloudTrail log file integrity validation".
//
// # What is different from AWS
//
// There are management events only. CloudWatch Logs, SNS, organizations, encryption
// of log files under KMS, insights, event data stores and channels are refused with
// the documented errors. Digests are made for regions in which something happened.
package cloudtrail
