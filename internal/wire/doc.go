// Package wire turns bytes into the input structs of aws-sdk-go-v2 and its
// output structs and errors into bytes, in the four protocols the served
// services speak: awsJson 1.1 (kms, cloudtrail, workspaces, ds), AWS Query (iam,
// sts), EC2 Query (ec2) and REST-JSON (ebs, ds-data). It promises that the official
// clients read every reply and that every request of theirs is read whole: what is
// not understood is reported, what breaks a constraint of the API model is
// refused in AWS's words. It knows shapes, not meaning.
//
// The structs carry no tags, so names and constraints come from tables, one text file a service,
// embedded, parsed on first use of the service and written by
// internal/wire/gen from the API models. A line is a row of tab-separated columns, the first
// names its kind:
//
//	O  operation  input  output  method  URI  status  flags     flags: noauth
//	E  shape  code  status                                      an error
//	T  structure  payload  flags                                flags: s sensitive, u union
//	M  member  shape  r  bindings                               of the T above; r: required
//	L  list  element  min  max  s  item                         item: element name in EC2 replies
//	H  map  key  value  min  max  s
//	V  scalar  type  min  max  s  enum,enum,…  pattern
//
// Bindings are h:Header, q:parameter, u:label, n:JSON name, i: and o: the EC2 names in
// requests and replies. "-" is a shape that says nothing. Members and structures
// newer than the model have no row; then the Go name rules: as it is in JSON and
// Query, the first letter lower case in EC2 replies.
//
// From type and table a plan is built once per struct type, and the codecs follow it
// by field offset.
package wire

//go:generate go -C gen run . -botocore=$BOTOCORE_DATA
