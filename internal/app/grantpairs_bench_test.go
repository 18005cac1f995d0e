package app_test

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// BenchmarkGrantPairs is CreateGrant and RetireGrant by 1 and by 128 callers at a time, without
// HTTP and signature: authorization, the synced transaction with its record, the
// record's way to the log. An op is a pair; "cpu-ns/op" is the CPU time of the process.
func BenchmarkGrantPairs(b *testing.B) {
	s := apptest.New(b, func(c *app.Config) { c.Etcd.Unsynced = false })
	ctx := b.Context()
	made, err := s.KMS().CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		b.Fatal(err)
	}
	root := "arn:aws:iam::" + apptest.Account + ":root"
	caller := &api.Call{Time: time.Now().UTC(), Region: apptest.Region, Account: apptest.Account,
		Principal: api.Principal{Type: api.Root, Account: apptest.Account, ARN: root, ID: apptest.Account}}
	gw, c := s.App.Gateway(), caller.Forward("workspaces")
	ec := map[string]string{"aws:workspaces:sid-directoryid": "[S-1-5-21-277731876-1789304096-451871588-1107]@[d-1234abcd01]", "aws:ebs:id": "vol-1234abcd"}
	for name, callers := range map[string]int{"1": 1, "128": 128} {
		b.Run(name, func(b *testing.B) {
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						out, err := api.Do[kms.CreateGrantOutput](ctx, gw, c, "kms", "CreateGrant", &kms.CreateGrantInput{KeyId: made.KeyMetadata.KeyId,
							GranteePrincipal: &root, RetiringPrincipal: &root, Operations: []kmstypes.GrantOperation{kmstypes.GrantOperationDecrypt},
							Constraints: &kmstypes.GrantConstraints{EncryptionContextEquals: ec}})
						if err == nil {
							_, err = api.Do[kms.RetireGrantOutput](ctx, gw, c, "kms", "RetireGrant", &kms.RetireGrantInput{KeyId: aws.String(*made.KeyMetadata.Arn), GrantId: out.GrantId})
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(b.N), "cpu-ns/op")
		})
	}
}
