// Clients of the public APIs at this page's own address, one of each per region.

import type { CloudTrailClient } from '@aws-sdk/client-cloudtrail';
import type { DirectoryServiceClient } from '@aws-sdk/client-directory-service';
import type { EC2Client } from '@aws-sdk/client-ec2';
import type { IAMClient } from '@aws-sdk/client-iam';
import type { KMSClient } from '@aws-sdk/client-kms';
import type { STSClient } from '@aws-sdk/client-sts';
import type { WorkSpacesClient } from '@aws-sdk/client-workspaces';
import { credentials, getState, ownCredentials, useRole } from './session';

const config = (region: string) => ({ region, endpoint: location.origin, credentials, maxAttempts: 2 });

// Each SDK is loaded when a page first needs it. A client keeps the credentials it was given until
// they expire: whoever signs in next, or switches to a role, gets clients of their own.
function lazy<C>(load: () => Promise<new (c: ReturnType<typeof config>) => C>): (region: string) => Promise<C> {
  const made = new Map<string, Promise<C>>();
  return (region) => {
    const { identity, role } = getState();
    const whose = [region, identity?.session, role?.credentials.accessKeyId].join();
    let c = made.get(whose);
    if (!c) {
      c = load().then((Client) => new Client(config(region)));
      made.set(whose, c);
    }
    return c;
  };
}

export const kms = lazy<KMSClient>(() => import('@aws-sdk/client-kms').then((m) => m.KMSClient as never));
export const iam = lazy<IAMClient>(() => import('@aws-sdk/client-iam').then((m) => m.IAMClient as never));
export const workspaces = lazy<WorkSpacesClient>(() => import('@aws-sdk/client-workspaces').then((m) => m.WorkSpacesClient as never));
export const ec2 = lazy<EC2Client>(() => import('@aws-sdk/client-ec2').then((m) => m.EC2Client as never));
export const cloudtrail = lazy<CloudTrailClient>(() => import('@aws-sdk/client-cloudtrail').then((m) => m.CloudTrailClient as never));
export const ds = lazy<DirectoryServiceClient>(() => import('@aws-sdk/client-directory-service').then((m) => m.DirectoryServiceClient as never));
export const sts = lazy<STSClient>(() => import('@aws-sdk/client-sts').then((m) => m.STSClient as never));

/** Switches to a role: sts:AssumeRole, with the user's own credentials. */
export async function switchRole(account: string, role: string, sessionName: string) {
  const { STSClient, AssumeRoleCommand } = await import('@aws-sdk/client-sts');
  const client = new STSClient({ ...config('us-east-1'), credentials: ownCredentials });
  const roleArn = role.startsWith('arn:') ? role : `arn:aws:iam::${account}:role/${role}`;
  const out = await client.send(new AssumeRoleCommand({ RoleArn: roleArn, RoleSessionName: sessionName.replace(/[^\w+=,.@-]/g, '-').slice(0, 64) || 'console', DurationSeconds: 3600 }));
  const c = out.Credentials!;
  useRole({
    roleArn,
    name: roleArn.split('/').pop()!,
    account: roleArn.split(':')[4],
    credentials: { accessKeyId: c.AccessKeyId!, secretAccessKey: c.SecretAccessKey!, sessionToken: c.SessionToken!, expiration: c.Expiration! },
  });
}

/** Collects the pages of a list. */
export async function pages<P extends object, T>(next: (token: string | undefined) => Promise<P>, items: (p: P) => T[] | undefined, token: (p: P) => string | undefined, most = 2000): Promise<T[]> {
  const all: T[] = [];
  let t: string | undefined;
  do {
    const p = await next(t);
    all.push(...(items(p) ?? []));
    t = token(p) || undefined;
  } while (t && all.length < most);
  return all;
}
