module github.com/sealdesk/sealdesk/internal/wire/gen

go 1.26.0

require github.com/aws/aws-sdk-go v1.55.8
