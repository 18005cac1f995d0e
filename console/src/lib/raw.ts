// Two services have no client in the SDK for JavaScript: Directory Service Data
// (REST-JSON) and our own extension operations (awsJson 1.1). Both are one POST.

import { Sha256 } from '@aws-crypto/sha256-browser';
import { HttpRequest } from '@smithy/protocol-http';
import { SignatureV4 } from '@smithy/signature-v4';
import { credentials } from './session';

export class ServiceError extends Error {
  readonly $metadata: { requestId?: string; httpStatusCode?: number };
  constructor(name: string, message: string, requestId: string, httpStatusCode: number) {
    super(message);
    this.name = name;
    this.$metadata = { requestId, httpStatusCode };
  }
}

async function call<T>(service: string, region: string, path: string, query: Record<string, string>, headers: Record<string, string>, body: unknown): Promise<T> {
  const signer = new SignatureV4({ service, region, credentials, sha256: Sha256 });
  const text = JSON.stringify(body);
  const signed = await signer.sign(
    new HttpRequest({
      method: 'POST',
      protocol: location.protocol,
      hostname: location.hostname,
      port: location.port ? Number(location.port) : undefined,
      path,
      query,
      headers: { host: location.host, ...headers },
      body: text,
    }),
  );
  const { host: _, ...rest } = signed.headers;
  const search = new URLSearchParams(query).toString();
  const r = await fetch(path + (search ? `?${search}` : ''), { method: 'POST', headers: rest as Record<string, string>, body: text });
  const out = await r.json().catch(() => ({}));
  if (!r.ok) {
    const type = r.headers.get('x-amzn-errortype') ?? out.__type ?? 'Error';
    throw new ServiceError(String(type).split(':')[0].split('#').pop()!, out.message ?? out.Message ?? `The server answered ${r.status}.`, r.headers.get('x-amzn-requestid') ?? '', r.status);
  }
  return out as T;
}

export interface DirectoryUser {
  SAMAccountName: string;
  SID: string;
  GivenName?: string;
  Surname?: string;
  EmailAddress?: string;
  Enabled: boolean;
  DistinguishedName?: string;
  UserPrincipalName?: string;
}

const data = <T>(region: string, path: string, directoryId: string, body: object) => call<T>('ds-data', region, path, { DirectoryId: directoryId }, { 'content-type': 'application/json' }, body);

/** Directory Service Data. */
export const dsData = {
  async listUsers(region: string, directoryId: string): Promise<DirectoryUser[]> {
    const all: DirectoryUser[] = [];
    let NextToken: string | undefined;
    do {
      const page: { Users?: DirectoryUser[]; NextToken?: string } = await data(region, '/Users/ListUsers', directoryId, { NextToken });
      all.push(...(page.Users ?? []));
      NextToken = page.NextToken;
    } while (NextToken && all.length < 5000);
    return all;
  },
  describeUser: (region: string, directoryId: string, name: string) => data<DirectoryUser>(region, '/Users/DescribeUser', directoryId, { SAMAccountName: name }),
  createUser: (region: string, directoryId: string, u: { SAMAccountName: string; GivenName?: string; Surname?: string; EmailAddress?: string }) =>
    data<{ SID: string }>(region, '/Users/CreateUser', directoryId, u),
  disableUser: (region: string, directoryId: string, name: string) => data(region, '/Users/DisableUser', directoryId, { SAMAccountName: name }),
  deleteUser: (region: string, directoryId: string, name: string) => data(region, '/Users/DeleteUser', directoryId, { SAMAccountName: name }),
};

export interface Desktop {
  WorkspaceId: string;
  State: string;
  Progress?: string;
  ErrorMessage?: string;
  RootVolumeId?: string;
  UserVolumeId?: string;
  GrantId?: string;
  KeyId?: string;
  MachineState?: string;
  Accelerator?: string;
  MemoryBytes?: number;
  StartedAt?: number;
  DesktopReadyAt?: number;
  SidDirectoryId?: string;
  UserName?: string;
}

const ours = <T>(region: string, op: string, body: object) => call<T>('sealdesk', region, '/', {}, { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': `Sealdesk_20261101.${op}` }, body);

/** The operations that AWS does not have. */
export const sealdesk = {
  describeDesktops: (region: string, ids?: string[]) => ours<{ Desktops: Desktop[] }>(region, 'DescribeDesktops', ids ? { WorkspaceIds: ids } : {}).then((o) => o.Desktops ?? []),
  screenshot: (region: string, id: string) => ours<{ Png: string }>(region, 'GetDesktopScreenshot', { WorkspaceId: id }).then((o) => o.Png),
};
