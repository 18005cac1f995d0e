package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) defaultsOperations() []api.Operation {
	return []api.Operation{
		update("EnableEbsEncryptionByDefault", func(_ context.Context, tx *store.Tx, c *api.Call, _ *ec2.EnableEbsEncryptionByDefaultInput) (*ec2.EnableEbsEncryptionByDefaultOutput, error) {
			on, err := s.setEncryptByDefault(tx, c, true)
			return &ec2.EnableEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: on}, err
		}),
		update("DisableEbsEncryptionByDefault", func(_ context.Context, tx *store.Tx, c *api.Call, _ *ec2.DisableEbsEncryptionByDefaultInput) (*ec2.DisableEbsEncryptionByDefaultOutput, error) {
			on, err := s.setEncryptByDefault(tx, c, false)
			return &ec2.DisableEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: on}, err
		}),
		view("GetEbsEncryptionByDefault", func(_ context.Context, tx *store.Tx, c *api.Call, _ *ec2.GetEbsEncryptionByDefaultInput) (*ec2.GetEbsEncryptionByDefaultOutput, error) {
			return &ec2.GetEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: aws.Bool(s.settingsOf(tx, c.Account, c.Region).EncryptByDefault)}, nil
		}),
		view("GetEbsDefaultKmsKeyId", func(_ context.Context, tx *store.Tx, c *api.Call, _ *ec2.GetEbsDefaultKmsKeyIdInput) (*ec2.GetEbsDefaultKmsKeyIdOutput, error) {
			return &ec2.GetEbsDefaultKmsKeyIdOutput{KmsKeyId: aws.String(s.settingsOf(tx, c.Account, c.Region).key())}, nil
		}),
		steps("ModifyEbsDefaultKmsKeyId", s.modifyDefaultKey),
		update("ResetEbsDefaultKmsKeyId", func(_ context.Context, tx *store.Tx, c *api.Call, _ *ec2.ResetEbsDefaultKmsKeyIdInput) (*ec2.ResetEbsDefaultKmsKeyIdOutput, error) {
			set, err := s.editSettings(tx, c, func(e *settings) { e.DefaultKey = "" })
			if err != nil {
				return nil, err
			}
			return &ec2.ResetEbsDefaultKmsKeyIdOutput{KmsKeyId: aws.String(set.key())}, nil
		}),
	}
}

// key is what a volume is encrypted with when no key is named: as AWS shows it, the
// alias as long as nothing else was set.
func (e settings) key() string {
	if e.DefaultKey == "" {
		return defaultAlias
	}
	return e.DefaultKey
}

func (s *Service) settingsOf(tx *store.Tx, account, region string) settings {
	if e := s.settings.Get(tx, account+"/"+region); e != nil {
		return *e
	}
	return settings{}
}

func (s *Service) editSettings(tx *store.Tx, c *api.Call, f func(*settings)) (settings, error) {
	e := s.settingsOf(tx, c.Account, c.Region)
	f(&e)
	return e, s.settings.Put(tx, c.Account+"/"+c.Region, &e)
}

func (s *Service) setEncryptByDefault(tx *store.Tx, c *api.Call, on bool) (*bool, error) {
	_, err := s.editSettings(tx, c, func(e *settings) { e.EncryptByDefault = on })
	return aws.Bool(on), err
}

// modifyDefaultKey sets the default key. The key must exist, serve volumes and be
// the caller's to describe; AWS stores the ARN as well.
func (s *Service) modifyDefaultKey(ctx context.Context, c *api.Call, in *ec2.ModifyEbsDefaultKmsKeyIdInput) (*ec2.ModifyEbsDefaultKmsKeyIdOutput, error) {
	if aws.ToString(in.KmsKeyId) == "" {
		return nil, fail("MissingParameter", "The request must contain the parameter KmsKeyId")
	}
	arn, _, err := s.describeKey(ctx, c, *in.KmsKeyId)
	if err != nil {
		return nil, err
	}
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		_, err := s.editSettings(tx, c, func(e *settings) { e.DefaultKey = arn })
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ec2.ModifyEbsDefaultKmsKeyIdOutput{KmsKeyId: aws.String(arn)}, nil
}
