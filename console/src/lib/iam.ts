// IAM, called by operation name: its three kinds of entity have the same operations under other names.

import * as client from './clients';

// biome-ignore: the SDK's types are per operation
type Out = any;

export async function iam(op: string, input: object = {}): Promise<Out> {
  const [c, m] = await Promise.all([client.iam('us-east-1'), import('@aws-sdk/client-iam')]);
  const Command = (m as Out)[`${op}Command`];
  return c.send(new Command(input));
}

/** All pages of a list. */
export const iamAll = <T = Out>(op: string, field: string, input: object = {}): Promise<T[]> =>
  client.pages<Out, T>((Marker) => iam(op, { ...input, Marker }), (p) => p[field], (p) => p.Marker);

export const document = (encoded: string | undefined) => {
  const text = decodeURIComponent(encoded ?? '');
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
};

export type Kind = 'users' | 'groups' | 'roles' | 'policies';
/** The word in operation and member names. */
export const WORD: Record<Kind, string> = { users: 'User', groups: 'Group', roles: 'Role', policies: 'Policy' };

const ignoreMissing = (e: Error) => {
  if (e.name !== 'NoSuchEntityException' && e.name !== 'NoSuchEntity') throw e;
};

/** Deletes an entity with what hangs on it, as the console of AWS does; IAM itself refuses until it is bare. */
export async function deleteEntity(kind: Kind, name: string) {
  const w = WORD[kind];
  if (kind === 'policies') {
    const e = await iam('ListEntitiesForPolicy', { PolicyArn: name });
    for (const u of e.PolicyUsers ?? []) await iam('DetachUserPolicy', { UserName: u.UserName, PolicyArn: name });
    for (const g of e.PolicyGroups ?? []) await iam('DetachGroupPolicy', { GroupName: g.GroupName, PolicyArn: name });
    for (const r of e.PolicyRoles ?? []) await iam('DetachRolePolicy', { RoleName: r.RoleName, PolicyArn: name });
    for (const v of await iamAll('ListPolicyVersions', 'Versions', { PolicyArn: name })) if (!v.IsDefaultVersion) await iam('DeletePolicyVersion', { PolicyArn: name, VersionId: v.VersionId });
    await iam('DeletePolicy', { PolicyArn: name });
    return;
  }
  const who = { [`${w}Name`]: name };
  for (const p of await iamAll(`ListAttached${w}Policies`, 'AttachedPolicies', who)) await iam(`Detach${w}Policy`, { ...who, PolicyArn: p.PolicyArn });
  for (const p of await iamAll<string>(`List${w}Policies`, 'PolicyNames', who)) await iam(`Delete${w}Policy`, { ...who, PolicyName: p });
  if (kind === 'groups') for (const u of (await iam('GetGroup', who)).Users ?? []) await iam('RemoveUserFromGroup', { ...who, UserName: u.UserName });
  if (kind === 'roles') for (const p of await iamAll('ListInstanceProfilesForRole', 'InstanceProfiles', who)) await iam('RemoveRoleFromInstanceProfile', { ...who, InstanceProfileName: p.InstanceProfileName });
  if (kind === 'users') {
    for (const g of await iamAll('ListGroupsForUser', 'Groups', who)) await iam('RemoveUserFromGroup', { ...who, GroupName: g.GroupName });
    for (const k of await iamAll('ListAccessKeys', 'AccessKeyMetadata', who)) await iam('DeleteAccessKey', { ...who, AccessKeyId: k.AccessKeyId });
    for (const d of await iamAll('ListMFADevices', 'MFADevices', who)) {
      await iam('DeactivateMFADevice', { ...who, SerialNumber: d.SerialNumber });
      await iam('DeleteVirtualMFADevice', { SerialNumber: d.SerialNumber }).catch(ignoreMissing);
    }
    await iam('DeleteLoginProfile', who).catch(ignoreMissing);
  }
  await iam(`Delete${w}`, who);
}
