// What can be known of a key before a launch is tried: is it of the right kind,
// may the administrator make a grant on it, is there room for one. A launch that
// would be refused says here why, and what would have to be allowed.

import { SimulatePrincipalPolicyCommand } from '@aws-sdk/client-iam';
import { CreateGrantCommand, DescribeKeyCommand, type KeyMetadata, ListGrantsCommand } from '@aws-sdk/client-kms';
import { iam, kms } from '../lib/clients';

export interface Check {
  id: 'found' | 'symmetric' | 'enabled' | 'grant' | 'room';
  state: 'ok' | 'no' | 'unknown';
  text: string;
  /** The policy statement that is missing. */
  statement?: string;
}

export interface Preflight {
  key?: KeyMetadata;
  checks: Check[];
}

const GRANTS_PER_KEY = 50_000; // KMS Developer Guide, "Resource quotas"
const PER_DESKTOP = 3; // WorkSpaces' own, and EBS's for each of two volumes

interface Fault {
  name?: string;
  message?: string;
}

/** The statements of MISSION's administrator, Part 2, for one key. */
export const missing = (arn: string) => JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'kms:CreateGrant', Resource: arn }] }, null, 2);

export async function preflight(region: string, keyId: string, me: { arn: string }): Promise<Preflight> {
  const client = await kms(region);
  const checks: Check[] = [];
  let key: KeyMetadata | undefined;
  try {
    key = (await client.send(new DescribeKeyCommand({ KeyId: keyId }))).KeyMetadata!;
    checks.push({ id: 'found', state: 'ok', text: 'The key was found.' });
  } catch (e) {
    const f = e as Fault;
    if (/NotFound|InvalidArn/.test(f.name ?? '')) return { checks: [{ id: 'found', state: 'no', text: f.message ?? 'The key was not found.' }] };
    checks.push({ id: 'found', state: 'unknown', text: 'You may not see this key (kms:DescribeKey); WorkSpaces will look when you launch.' });
  }
  if (key) {
    const symmetric = key.KeySpec === 'SYMMETRIC_DEFAULT' && key.KeyUsage === 'ENCRYPT_DECRYPT';
    checks.push({ id: 'symmetric', state: symmetric ? 'ok' : 'no', text: symmetric ? 'It is a symmetric encryption key.' : `It is a ${key.KeySpec} key. WorkSpaces needs a symmetric encryption key (SYMMETRIC_DEFAULT).` });
    checks.push({ id: 'enabled', state: key.KeyState === 'Enabled' ? 'ok' : 'no', text: key.KeyState === 'Enabled' ? 'It is enabled.' : `It is ${key.KeyState}. Enable it first.` });
  }
  if (key?.KeyManager === 'AWS') {
    checks.push({ id: 'grant', state: 'ok', text: 'An AWS managed key already lets WorkSpaces use it; no permission is needed.' });
    return { key, checks };
  }
  const arn = key?.Arn ?? keyId;
  checks.push(await mayGrant(region, arn, me));
  try {
    let n = 0;
    let Marker: string | undefined;
    do {
      const p = await client.send(new ListGrantsCommand({ KeyId: arn, Limit: 100, Marker }));
      n += p.Grants?.length ?? 0;
      Marker = p.Truncated ? p.NextMarker : undefined;
    } while (Marker && n < 5000);
    const left = GRANTS_PER_KEY - n;
    checks.push({ id: 'room', state: left >= PER_DESKTOP ? 'ok' : 'no', text: `${Marker ? 'At least ' : ''}${n} of ${GRANTS_PER_KEY} grants are in use; a desktop needs ${PER_DESKTOP}.` });
  } catch {
    checks.push({ id: 'room', state: 'unknown', text: 'How many grants the key has is not known to you (kms:ListGrants).' });
  }
  return { key, checks };
}

// A dry run is KMS's own decision, with key policy and all; where it cannot tell,
// IAM's simulator gives its part of the answer.
async function mayGrant(region: string, arn: string, me: { arn: string }): Promise<Check> {
  const no = (text: string): Check => ({ id: 'grant', state: 'no', text, statement: missing(arn) });
  try {
    await (await kms(region)).send(
      new CreateGrantCommand({ KeyId: arn, GranteePrincipal: `workspaces.${region}.amazonaws.com`, RetiringPrincipal: `workspaces.${region}.amazonaws.com`, Operations: ['Decrypt', 'GenerateDataKeyWithoutPlaintext', 'DescribeKey', 'CreateGrant', 'RetireGrant'], DryRun: true }),
    );
    return { id: 'grant', state: 'ok', text: 'You may create a grant on it.' };
  } catch (e) {
    const f = e as Fault;
    if (f.name === 'DryRunOperationException') return { id: 'grant', state: 'ok', text: 'You may create a grant on it.' };
    if (/AccessDenied/.test(f.name ?? '')) {
      // A key policy may allow it to AWS services only (kms:GrantIsForAWSResource), which no dry run of one's own satisfies.
      try {
        const out = await (await iam(region)).send(
          new SimulatePrincipalPolicyCommand({
            PolicySourceArn: me.arn,
            ActionNames: ['kms:CreateGrant'],
            ResourceArns: [arn],
            ContextEntries: [{ ContextKeyName: 'kms:GrantIsForAWSResource', ContextKeyType: 'boolean', ContextKeyValues: ['true'] }, { ContextKeyName: 'kms:ViaService', ContextKeyType: 'string', ContextKeyValues: [`workspaces.${region}.amazonaws.com`] }],
          }),
        );
        if (out.EvaluationResults?.[0]?.EvalDecision === 'allowed') return { id: 'grant', state: 'ok', text: 'Your policies allow you to create a grant on it, for AWS services.' };
        return no(f.message ?? 'You may not create a grant on it (kms:CreateGrant).');
      } catch {
        return no(f.message ?? 'You may not create a grant on it (kms:CreateGrant).');
      }
    }
    if (/Disabled|InvalidState|Unsupported|InvalidKeyUsage|NotFound/.test(f.name ?? '')) return { id: 'grant', state: 'unknown', text: 'Whether you may create a grant shows when the key can be used.' };
    return { id: 'grant', state: 'unknown', text: f.message ?? 'Whether you may create a grant is not known.' };
  }
}
