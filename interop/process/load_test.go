package process

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/sealdesk/sealdesk/internal/audit"
)

// answered is a call that the server answered, by its request ID.
type answered struct {
	requestID, operation string
	// check finds out after the restart whether what was answered still holds.
	check func() error
}

// TestNothingAnsweredIsLost: the server is killed with kill -9 while clients write
// and read. After each restart every answered write is there, every answered call has
// its record, and the audit log verifies.
func TestNothingAnsweredIsLost(t *testing.T) {
	s := newServer(t, nil)
	key, err := kms.NewFromConfig(s.config()).CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	id := key.KeyMetadata.KeyId
	total := 0
	for round := range 6 {
		var mu sync.Mutex
		var all []answered
		note := func(m middleware.Metadata, operation string, check func() error) {
			request, _ := awsmiddleware.GetRequestIDMetadata(m)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, answered{request, operation, check})
		}
		keys, users := kms.NewFromConfig(s.config()), iam.NewFromConfig(s.config())
		var wg sync.WaitGroup
		killed := make(chan struct{})
		load := func(f func(n int) error) {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := 0; ; n++ {
					if err := f(n); err != nil {
						select {
						case <-killed:
						case <-time.After(5 * time.Second):
							t.Errorf("a call failed and the server was not killed: %v", err)
						}
						return
					}
				}
			}()
		}
		for w := range 3 {
			load(func(n int) error {
				name := fmt.Sprintf("u-%d-%d-%d", round, w, n)
				out, err := users.CreateUser(ctx, &iam.CreateUserInput{UserName: &name})
				if err == nil {
					note(out.ResultMetadata, "CreateUser", func() error {
						_, err := iam.NewFromConfig(s.config()).GetUser(ctx, &iam.GetUserInput{UserName: &name})
						return err
					})
				}
				return err
			})
			load(func(n int) error {
				tag := fmt.Sprintf("t-%d-%d", round, w)
				value := fmt.Sprint(n)
				out, err := keys.TagResource(ctx, tags(*id, tag, value))
				if err == nil {
					note(out.ResultMetadata, "TagResource", func() error {
						got, err := kms.NewFromConfig(s.config()).ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: id})
						if err != nil {
							return err
						}
						for _, x := range got.Tags { // a later write may have been done and not answered
							var have, want int
							_, _ = fmt.Sscan(*x.TagValue, &have)
							_, _ = fmt.Sscan(value, &want)
							if *x.TagKey == tag && have >= want {
								return nil
							}
						}
						return fmt.Errorf("no tag %s with %s or later", tag, value)
					})
				}
				return err
			})
		}
		load(func(int) error {
			out, err := keys.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: []byte("kept")})
			if err == nil {
				note(out.ResultMetadata, "Encrypt", func() error {
					_, err := kms.NewFromConfig(s.config()).Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob})
					return err
				})
			}
			return err
		})
		time.Sleep(time.Duration(200+rand.IntN(400)) * time.Millisecond)
		s.kill()
		close(killed)
		wg.Wait()
		s.start()

		for _, a := range all {
			if err := a.check(); err != nil {
				t.Errorf("round %d: %s was answered (request %s) and is lost: %v", round, a.operation, a.requestID, err)
			}
		}
		eventually(t, 20*time.Second, "every answered call is on the record", func() error {
			seen := s.requestIDs(t)
			for _, a := range all {
				if !seen[a.requestID] {
					return fmt.Errorf("%s, request %s, is not", a.operation, a.requestID)
				}
			}
			return nil
		})
		total += len(all)
	}
	if total < 100 {
		t.Errorf("only %d calls were answered: no load", total)
	}
	t.Logf("%d answered calls over six kills, none lost", total)
	s.kill()
	if out, err := s.command(nil, "audit", "verify", "--data-dir", s.data).CombinedOutput(); err != nil {
		t.Errorf("audit verify: %v, %s", err, out)
	}
}

func tags(key, tag, value string) *kms.TagResourceInput {
	return &kms.TagResourceInput{KeyId: &key, Tags: []kmstypes.Tag{{TagKey: &tag, TagValue: aws.String(value)}}}
}

// requestIDs are those of all records.
func (s *server) requestIDs(t *testing.T) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(s.data, "audit", "segment-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			var l struct{ Record audit.Record }
			if json.Unmarshal([]byte(line), &l) == nil {
				ids[l.Record.RequestID] = true
			}
		}
	}
	return ids
}
