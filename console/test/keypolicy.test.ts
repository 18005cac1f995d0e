import { describe, expect, it } from 'vitest';
import * as kp from '../src/lib/keypolicy';

const alice = 'arn:aws:iam::111122223333:user/alice';
const ops = 'arn:aws:iam::111122223333:role/ops';
const root = (account = '111122223333') => `arn:aws:iam::${account}:root`;

// What KMS gives a key that was made without a policy.
const byAPI = kp.parsePolicy(`{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions","Effect":"Allow","Principal":{"AWS":"${root()}"},"Action":"kms:*","Resource":"*"}]}`);

const actions = (d: kp.PolicyDocument, sid: string) => d.Statement.find((s) => s.Sid === sid)?.Action;
const who = (d: kp.PolicyDocument, sid: string) => (d.Statement.find((s) => s.Sid === sid)?.Principal as { AWS: string | string[] } | undefined)?.AWS;

describe('adding key users', () => {
  it('makes both statements where there are none', () => {
    const d = kp.addKeyUsers(byAPI, [alice]);
    expect(d.Statement).toHaveLength(3);
    expect(d.Statement[0]).toEqual(byAPI.Statement[0]);
    expect(d.Statement[1]).toEqual({
      Sid: 'Allow use of the key',
      Effect: 'Allow',
      Principal: { AWS: alice },
      Action: ['kms:Encrypt', 'kms:Decrypt', 'kms:ReEncrypt*', 'kms:GenerateDataKey*', 'kms:DescribeKey'],
      Resource: '*',
    });
    expect(d.Statement[2]).toEqual({
      Sid: 'Allow attachment of persistent resources',
      Effect: 'Allow',
      Principal: { AWS: alice },
      Action: ['kms:CreateGrant', 'kms:ListGrants', 'kms:RevokeGrant'],
      Resource: '*',
      Condition: { Bool: { 'kms:GrantIsForAWSResource': 'true' } },
    });
  });

  it('adds to both statements where they are, and changes nothing else', () => {
    const once = kp.addKeyUsers(byAPI, [alice]);
    once.Statement[1].Action = ['kms:Decrypt']; // someone narrowed it
    const twice = kp.addKeyUsers(once, [ops, alice]);
    expect(who(twice, kp.SID_USE)).toEqual([alice, ops]);
    expect(who(twice, kp.SID_GRANTS)).toEqual([alice, ops]);
    expect(actions(twice, kp.SID_USE)).toEqual(['kms:Decrypt']);
    expect(twice.Statement).toHaveLength(3);
    expect(once.Statement[1].Principal).toEqual({ AWS: alice }); // the document given is left alone
  });

  it('is undone by removing them, to the byte', () => {
    expect(kp.formatPolicy(kp.removeKeyUsers(kp.addKeyUsers(byAPI, [alice, ops]), [ops, alice]))).toBe(kp.formatPolicy(byAPI));
  });

  it('keeps statements it does not know', () => {
    const own: kp.Statement = { Sid: 'Ours', Effect: 'Deny', Principal: '*', Action: 'kms:Decrypt', Resource: '*', Condition: { Bool: { 'aws:SecureTransport': 'false' } } };
    const d = kp.addKeyUsers({ ...byAPI, Statement: [...byAPI.Statement, own] }, [alice]);
    expect(d.Statement[1]).toEqual(own);
    expect(kp.defaultView(d)?.others).toBe(1);
  });
});

describe('the default view', () => {
  it('tells users from accounts', () => {
    const d = kp.addAccounts(kp.addKeyUsers(byAPI, [alice]), ['444455556666']);
    expect(kp.defaultView(d)).toEqual({ administrators: [], deletion: false, users: [alice], accounts: ['444455556666'], others: 0 });
    expect(kp.removeAccounts(d, ['444455556666'])).toEqual(kp.addKeyUsers(byAPI, [alice]));
  });

  it('is not offered when a statement was changed beyond it', () => {
    const d = kp.addKeyUsers(byAPI, [alice]);
    d.Statement[1].Effect = 'Deny';
    expect(kp.defaultView(d)).toBeNull();
    const service = kp.addKeyUsers(byAPI, [alice]);
    service.Statement[1].Principal = { AWS: alice, Service: 'ec2.amazonaws.com' };
    expect(kp.defaultView(service)).toBeNull();
  });

  it('shows and changes key deletion', () => {
    const d = kp.newKeyPolicy('111122223333', [ops], true, [alice], []);
    expect(kp.defaultView(d)).toEqual({ administrators: [ops], deletion: true, users: [alice], accounts: [], others: 0 });
    const off = kp.allowDeletion(d, false);
    expect(kp.defaultView(off)?.deletion).toBe(false);
    expect(kp.allowDeletion(off, true)).toEqual(d);
  });
});

describe('the wizard', () => {
  it('always leaves the account a way in', () => {
    const d = kp.newKeyPolicy('111122223333', [], false, [], []);
    expect(d.Statement).toEqual([{ Sid: 'Enable IAM User Permissions', Effect: 'Allow', Principal: { AWS: root() }, Action: 'kms:*', Resource: '*' }]);
  });
});

describe('reading a policy', () => {
  it.each([
    ['{', 'a name in double quotes'],
    ['[]', 'a JSON object'],
    ['{}', 'no "Statement"'],
    ['{"Statement":[{"Effect":"allow","Action":"*"}]}', 'Statement 1: "Effect"'],
    ['{"Statement":[{"Sid":"a","Effect":"Allow"}]}', 'Statement 1 (a) has neither'],
  ])('%s: says what is wrong', (text, want) => {
    expect(() => kp.parsePolicy(text)).toThrow(want);
  });
  it('accepts a single statement', () => {
    expect(kp.parsePolicy('{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}').Statement).toHaveLength(1);
  });
});
