package clients

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// The volumes of the estate need volumed.
func TestMain(m *testing.M) { apptest.Main(m) }

// TestTerraform: the AWS provider of Terraform makes an estate, finds it as it was
// described, changes it, finds it so again, and takes it down to nothing. A member that
// the provider reads and we do not give would be a difference in a plan.
func TestTerraform(t *testing.T) {
	if testing.Short() {
		t.Skip("the provider's own waits take minutes")
	}
	terraform := tool(t, "terraform", "install Terraform; its AWS provider comes from the registry, or from where TF_CLI_CONFIG_FILE says")
	image := filepath.Join(t.TempDir(), "desktop.raw")
	if err := os.WriteFile(image, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := apptest.New(t, func(c *app.Config) { c.Image = image })
	if err := os.MkdirAll(filepath.Join(s.Dir, "trails", "terraform-bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	estate, err := os.ReadFile("testdata/terraform/estate.tf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "estate.tf"), estate, 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(environment(t, s), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1")
	cmd := exec.Command(terraform, "init", "-no-color", "-input=false")
	cmd.Env, cmd.Dir = env, dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the AWS provider cannot be installed: %v\n%.1000s", err, out)
	}
	unchanged := func(vars ...string) {
		t.Helper()
		cmd := exec.Command(terraform, append([]string{"plan", "-no-color", "-input=false", "-detailed-exitcode"}, vars...)...)
		cmd.Env, cmd.Dir = env, dir
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 2 {
			_, what, _ := strings.Cut(string(out), "Terraform will perform")
			t.Errorf("what is there differs from what was described:\n%s", what)
		} else if err != nil {
			t.Fatalf("terraform plan: %v\n%s", err, out)
		}
	}
	for _, vars := range [][]string{nil, {"-var=later=true"}} {
		run(t, env, dir, terraform, append([]string{"apply", "-auto-approve", "-no-color", "-input=false"}, vars...)...)
		unchanged(vars...)
	}
	run(t, env, dir, terraform, "destroy", "-auto-approve", "-no-color", "-input=false")
	keys, err := s.KMS().ListKeys(t.Context(), &kms.ListKeysInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys.Keys {
		if g, err := s.KMS().ListGrants(t.Context(), &kms.ListGrantsInput{KeyId: k.KeyId}); err == nil && len(g.Grants) != 0 {
			t.Errorf("%d grants are left over on %s", len(g.Grants), *k.KeyId)
		}
	}
}
