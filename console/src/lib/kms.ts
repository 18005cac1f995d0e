// What the KMS pages read: keys with their aliases, and what hangs on a key.

import type { AliasListEntry, CustomKeyStoresListEntry, GrantListEntry, KeyMetadata } from '@aws-sdk/client-kms';
import * as client from './clients';
import { pages } from './clients';

export interface Key {
  id: string;
  arn: string;
  aliases: string[];
  /** Absent when the caller may not describe the key. */
  meta?: KeyMetadata;
}

export const isManaged = (k: Key) => k.meta?.KeyManager === 'AWS' || k.aliases.some((a) => a.startsWith('alias/aws/'));
export const keyName = (k: Key) => k.aliases[0]?.replace(/^alias\//, '') ?? k.id;

async function each<T, R>(items: T[], f: (t: T) => Promise<R>, atOnce = 8): Promise<R[]> {
  const out: R[] = new Array(items.length);
  let next = 0;
  await Promise.all(
    Array.from({ length: Math.min(atOnce, items.length) }, async () => {
      while (next < items.length) {
        const i = next++;
        out[i] = await f(items[i]);
      }
    }),
  );
  return out;
}

export async function listAliases(region: string, KeyId?: string): Promise<AliasListEntry[]> {
  const [c, { ListAliasesCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
  return pages((Marker) => c.send(new ListAliasesCommand({ KeyId, Marker })), (p) => p.Aliases, (p) => p.NextMarker);
}

/** All keys of the region. Who may only list still sees IDs and aliases. */
export async function listKeys(region: string): Promise<Key[]> {
  const [c, { ListKeysCommand, DescribeKeyCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
  const [keys, aliases] = await Promise.all([pages((Marker) => c.send(new ListKeysCommand({ Marker })), (p) => p.Keys, (p) => p.NextMarker), listAliases(region)]);
  return each(keys, async (k) => ({
    id: k.KeyId!,
    arn: k.KeyArn!,
    aliases: aliases.filter((a) => a.TargetKeyId === k.KeyId).map((a) => a.AliasName!),
    meta: await c.send(new DescribeKeyCommand({ KeyId: k.KeyId })).then(
      (o) => o.KeyMetadata,
      () => undefined,
    ),
  }));
}

export async function describeKey(region: string, id: string): Promise<Key> {
  const [c, { DescribeKeyCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
  const [{ KeyMetadata: meta }, aliases] = await Promise.all([c.send(new DescribeKeyCommand({ KeyId: id })), listAliases(region, id).catch(() => [])]);
  return { id: meta!.KeyId!, arn: meta!.Arn!, aliases: aliases.map((a) => a.AliasName!), meta };
}

export async function listGrants(region: string, id: string): Promise<GrantListEntry[]> {
  const [c, { ListGrantsCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
  return pages((Marker) => c.send(new ListGrantsCommand({ KeyId: id, Marker })), (p) => p.Grants, (p) => p.NextMarker);
}

/** Something that stops working with its key. */
export interface Hit {
  id: string;
  kind: 'WorkSpace' | 'Volume' | 'Snapshot' | 'Grant';
  about: string;
  state: string;
  /** It runs on a data key that is in memory already. */
  running: boolean;
}

const same = (key: Key, ref: string | undefined) => !!ref && (ref === key.arn || ref === key.id || key.aliases.some((a) => ref === a || ref.endsWith(`:${a}`)));

/**
 * What a key protects: desktops and volumes that name it, and grants to others. What
 * the caller may not list is said, so that an empty list is not taken for safety.
 */
export async function impact(region: string, key: Key): Promise<{ hits: Hit[]; unknown: string[] }> {
  const unknown: string[] = [];
  const or = <T>(what: string, p: Promise<T[]>) => p.catch((e: Error) => (unknown.push(`${what}: ${e.message}`), [] as T[]));
  const [spaces, volumes, snapshots, grants] = await Promise.all([
    or(
      'WorkSpaces',
      (async () => {
        const [c, { DescribeWorkspacesCommand }] = await Promise.all([client.workspaces(region), import('@aws-sdk/client-workspaces')]);
        return pages((NextToken) => c.send(new DescribeWorkspacesCommand({ NextToken })), (p) => p.Workspaces, (p) => p.NextToken);
      })(),
    ),
    or(
      'EC2 volumes',
      (async () => {
        const [c, { DescribeVolumesCommand }] = await Promise.all([client.ec2(region), import('@aws-sdk/client-ec2')]);
        return pages((NextToken) => c.send(new DescribeVolumesCommand({ NextToken, MaxResults: 500 })), (p) => p.Volumes, (p) => p.NextToken);
      })(),
    ),
    or(
      'EC2 snapshots',
      (async () => {
        const [c, { DescribeSnapshotsCommand }] = await Promise.all([client.ec2(region), import('@aws-sdk/client-ec2')]);
        return pages((NextToken) => c.send(new DescribeSnapshotsCommand({ NextToken, MaxResults: 500, OwnerIds: ['self'] })), (p) => p.Snapshots, (p) => p.NextToken);
      })(),
    ),
    or('Grants', listGrants(region, key.id)),
  ]);
  const hits: Hit[] = [];
  for (const w of spaces)
    if (same(key, w.VolumeEncryptionKey))
      hits.push({ id: w.WorkspaceId!, kind: 'WorkSpace', about: w.UserName ?? '', state: w.State ?? '', running: w.State !== 'STOPPED' && w.State !== 'SUSPENDED' });
  for (const v of volumes) if (same(key, v.KmsKeyId)) hits.push({ id: v.VolumeId!, kind: 'Volume', about: `${v.Size} GiB`, state: v.State ?? '', running: v.State === 'in-use' });
  for (const s of snapshots) if (same(key, s.KmsKeyId)) hits.push({ id: s.SnapshotId!, kind: 'Snapshot', about: s.VolumeId ?? '', state: s.State ?? '', running: false });
  for (const g of grants) {
    const service = `${g.GranteePrincipal ?? ''}${(g as { GranteeServicePrincipal?: string }).GranteeServicePrincipal ?? ''}`;
    // The grants of WorkSpaces and EBS are told by their desktops and volumes.
    if (!/workspaces|ec2-infrastructure|\bec2\b|\bebs\b/.test(service)) hits.push({ id: g.GrantId!, kind: 'Grant', about: service, state: (g.Operations ?? []).join(', '), running: false });
  }
  return { hits, unknown };
}

/** The custom key stores of the region, or the one with an ID. */
export async function listStores(region: string, CustomKeyStoreId?: string): Promise<CustomKeyStoresListEntry[]> {
  const [c, { DescribeCustomKeyStoresCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
  return pages((Marker) => c.send(new DescribeCustomKeyStoresCommand({ CustomKeyStoreId, Marker })), (p) => p.CustomKeyStores, (p) => p.NextMarker);
}
