// The key policy as the KMS console shows it: administrators, users, other
// accounts. Source: KMS Developer Guide, "Default key policy" (the statements and
// their Sids) and "Change a key policy". Statements that are none of these are
// kept as they are.

import { parseJson } from './json';

export interface Statement {
  Sid?: string;
  Effect: 'Allow' | 'Deny';
  Principal?: '*' | Record<string, string | string[]>;
  NotPrincipal?: unknown;
  Action?: string | string[];
  NotAction?: string | string[];
  Resource?: string | string[];
  Condition?: Record<string, Record<string, unknown>>;
}

export interface PolicyDocument {
  Version?: string;
  Id?: string;
  Statement: Statement[];
}

export const SID_ROOT = 'Enable IAM User Permissions';
export const SID_ADMINS = 'Allow access for Key Administrators';
export const SID_USE = 'Allow use of the key';
export const SID_GRANTS = 'Allow attachment of persistent resources';

const USE = ['kms:Encrypt', 'kms:Decrypt', 'kms:ReEncrypt*', 'kms:GenerateDataKey*', 'kms:DescribeKey'];
const GRANTS = ['kms:CreateGrant', 'kms:ListGrants', 'kms:RevokeGrant'];
const DELETION = ['kms:ScheduleKeyDeletion', 'kms:CancelKeyDeletion'];
const ADMIN = ['kms:Create*', 'kms:Describe*', 'kms:Enable*', 'kms:List*', 'kms:Put*', 'kms:Update*', 'kms:Revoke*', 'kms:Disable*', 'kms:Get*', 'kms:Delete*', 'kms:TagResource', 'kms:UntagResource', 'kms:RotateKeyOnDemand'];

const list = (v: string | string[] | undefined): string[] => (v === undefined ? [] : Array.isArray(v) ? v : [v]);

/** Reads a policy; throws with the place of the mistake. */
export function parsePolicy(text: string): PolicyDocument {
  const doc = parseJson(text);
  if (typeof doc !== 'object' || doc === null || Array.isArray(doc)) throw new Error('A policy is a JSON object with "Version" and "Statement".');
  const d = doc as PolicyDocument & { Statement?: unknown };
  const st: unknown = d.Statement;
  if (st === undefined) throw new Error('The policy has no "Statement".');
  const statements = Array.isArray(st) ? st : [st];
  statements.forEach((s, i) => {
    const at = `Statement ${i + 1}${s?.Sid ? ` (${s.Sid})` : ''}`;
    if (typeof s !== 'object' || s === null) throw new Error(`${at} is not an object.`);
    if (s.Effect !== 'Allow' && s.Effect !== 'Deny') throw new Error(`${at}: "Effect" is "Allow" or "Deny".`);
    if (s.Action === undefined && s.NotAction === undefined) throw new Error(`${at} has neither "Action" nor "NotAction".`);
  });
  return { ...d, Statement: statements as Statement[] };
}

export const formatPolicy = (d: PolicyDocument) => JSON.stringify(d, null, 2);

function principals(s: Statement | undefined): string[] {
  if (!s || typeof s.Principal !== 'object') return [];
  return list(s.Principal.AWS);
}

const bySid = (d: PolicyDocument, sid: string) => d.Statement.find((s) => s.Sid === sid);

/** Is the statement one that the default view can show and change? */
function plain(s: Statement | undefined): boolean {
  if (!s) return true;
  return s.Effect === 'Allow' && typeof s.Principal === 'object' && s.Principal !== null && Object.keys(s.Principal).every((k) => k === 'AWS') && s.NotPrincipal === undefined && s.NotAction === undefined;
}

export interface DefaultView {
  administrators: string[];
  /** Administrators may schedule the key's deletion. */
  deletion: boolean;
  users: string[];
  accounts: string[];
  /** Statements that the default view does not show. */
  others: number;
}

const accountOf = (arn: string) => (/^\d{12}$/.test(arn) ? arn : (arn.split(':')[4] ?? ''));
const isAccount = (arn: string) => /^\d{12}$/.test(arn) || arn.endsWith(':root');

/** The default view, or null when the policy does not fit it. */
export function defaultView(d: PolicyDocument): DefaultView | null {
  const admins = bySid(d, SID_ADMINS);
  const use = bySid(d, SID_USE);
  const grants = bySid(d, SID_GRANTS);
  if (![admins, use, grants].every(plain)) return null;
  const using = principals(use);
  return {
    administrators: principals(admins),
    deletion: list(admins?.Action).some((a) => a === 'kms:ScheduleKeyDeletion' || a === 'kms:*'),
    users: using.filter((p) => !isAccount(p)),
    accounts: using.filter(isAccount).map(accountOf),
    others: d.Statement.filter((s) => ![SID_ROOT, SID_ADMINS, SID_USE, SID_GRANTS].includes(s.Sid ?? '')).length,
  };
}

function withPrincipals(d: PolicyDocument, sid: string, fresh: Omit<Statement, 'Principal' | 'Sid'>, next: (now: string[]) => string[]): PolicyDocument {
  const statements = [...d.Statement];
  const i = statements.findIndex((s) => s.Sid === sid);
  const now = i < 0 ? [] : principals(statements[i]);
  const then = [...new Set(next(now))];
  if (then.length === 0) {
    if (i >= 0) statements.splice(i, 1); // a statement without a principal is not valid
  } else {
    const Principal = { AWS: then.length === 1 ? then[0] : then };
    if (i < 0) statements.push({ Sid: sid, ...fresh, Principal } as Statement);
    else statements[i] = { ...statements[i], Principal };
  }
  return { ...d, Version: d.Version ?? '2012-10-17', Statement: statements };
}

const useStatement: Omit<Statement, 'Principal' | 'Sid'> = { Effect: 'Allow', Action: USE, Resource: '*' };
const grantStatement: Omit<Statement, 'Principal' | 'Sid'> = { Effect: 'Allow', Action: GRANTS, Resource: '*', Condition: { Bool: { 'kms:GrantIsForAWSResource': 'true' } } };

/**
 * Adds key users: to the statement that allows use of the key and to the one
 * that allows attachment of persistent resources (grants for AWS services).
 */
export function addKeyUsers(d: PolicyDocument, arns: string[]): PolicyDocument {
  if (arns.length === 0) return d;
  const add = (now: string[]) => [...now, ...arns];
  return withPrincipals(withPrincipals(d, SID_USE, useStatement, add), SID_GRANTS, grantStatement, add);
}

export function removeKeyUsers(d: PolicyDocument, arns: string[]): PolicyDocument {
  const drop = (now: string[]) => now.filter((a) => !arns.includes(a));
  return withPrincipals(withPrincipals(d, SID_USE, useStatement, drop), SID_GRANTS, grantStatement, drop);
}

const rootOf = (account: string) => `arn:aws:iam::${account}:root`;

/** Lets other accounts use the key, as their own administrators decide. */
export const addAccounts = (d: PolicyDocument, accounts: string[]) => addKeyUsers(d, accounts.map(rootOf));
export const removeAccounts = (d: PolicyDocument, accounts: string[]) => removeKeyUsers(d, [...accounts.map(rootOf), ...accounts]);

export function addAdministrators(d: PolicyDocument, arns: string[]): PolicyDocument {
  if (arns.length === 0) return d;
  return withPrincipals(d, SID_ADMINS, { Effect: 'Allow', Action: [...ADMIN, ...DELETION], Resource: '*' }, (now) => [...now, ...arns]);
}

export const removeAdministrators = (d: PolicyDocument, arns: string[]) => withPrincipals(d, SID_ADMINS, { Effect: 'Allow' }, (now) => now.filter((a) => !arns.includes(a)));

/** Key deletion: whether administrators may delete the key. */
export function allowDeletion(d: PolicyDocument, allow: boolean): PolicyDocument {
  return {
    ...d,
    Statement: d.Statement.map((s) => {
      if (s.Sid !== SID_ADMINS) return s;
      const without = list(s.Action).filter((a) => !DELETION.includes(a));
      return { ...s, Action: allow ? [...without, ...DELETION] : without };
    }),
  };
}

/** The policy that the create-key wizard makes. */
export function newKeyPolicy(account: string, administrators: string[], deletion: boolean, users: string[], accounts: string[]): PolicyDocument {
  let d: PolicyDocument = {
    Version: '2012-10-17',
    Id: 'key-consolepolicy-3',
    Statement: [{ Sid: SID_ROOT, Effect: 'Allow', Principal: { AWS: rootOf(account) }, Action: 'kms:*', Resource: '*' }],
  };
  d = addAdministrators(d, administrators);
  if (!deletion) d = allowDeletion(d, false);
  d = addKeyUsers(d, users);
  return addAccounts(d, accounts);
}

/** What a WorkSpaces administrator's IAM policy must allow. */
export function administratorPolicy(keyArn: string): string {
  return JSON.stringify(
    {
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Action: 'kms:CreateGrant', Resource: keyArn },
        { Effect: 'Allow', Action: ['kms:ListAliases', 'kms:ListKeys'], Resource: '*' },
      ],
    },
    null,
    2,
  );
}
