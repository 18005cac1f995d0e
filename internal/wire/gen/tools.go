//go:build tools

package main

// The models of the retired SDK are read as files; this import keeps the
// module in go.mod.
import _ "github.com/aws/aws-sdk-go/aws"
