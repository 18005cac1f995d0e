// The signed-in session: temporary credentials, in memory only. A page that is
// reloaded gets new ones by the session cookie, which no script can read.

import { Sha256 } from '@aws-crypto/sha256-browser';
import { HttpRequest } from '@smithy/protocol-http';
import { SignatureV4 } from '@smithy/signature-v4';

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken: string;
  expiration: Date;
}

export interface Identity {
  account: string;
  arn: string;
  userName: string;
  root: boolean;
  mfa: boolean;
  session: string;
}

/** A role that the user switched to. */
export interface SwitchedRole {
  roleArn: string;
  name: string;
  account: string;
  credentials: Credentials;
}

export interface State {
  identity: Identity | null;
  role: SwitchedRole | null;
  /** Why there is no session, for the sign-in page. */
  notice: string;
}

/** An error that the console's own endpoints answered with. */
export class ConsoleError extends Error {
  constructor(
    readonly status: number,
    name: string,
    message: string,
    readonly requestId: string,
  ) {
    super(message);
    this.name = name;
  }
}

let state: State = { identity: null, role: null, notice: '' };
let base: Credentials | null = null;
let refreshing: Promise<Credentials> | null = null;
const listeners = new Set<() => void>();

export const getState = () => state;

export function subscribe(f: () => void) {
  listeners.add(f);
  return () => void listeners.delete(f);
}

function set(next: State) {
  state = next;
  for (const f of listeners) f();
}

/** Sends JSON to one of the console's own endpoints. */
export async function post<T>(path: string, body: unknown = {}, headers: Record<string, string> = {}): Promise<T> {
  let r: Response;
  try {
    r = await fetch(path, { method: 'POST', credentials: 'same-origin', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) });
  } catch {
    throw new ConsoleError(0, 'NetworkError', 'The server cannot be reached. Check the network and try again.', '');
  }
  const out = await r.json().catch(() => ({}));
  if (!r.ok) throw new ConsoleError(r.status, out.code ?? 'Error', out.message ?? `The server answered ${r.status}.`, out.requestId ?? '');
  return out as T;
}

interface SignedIn extends Identity {
  credentials?: Omit<Credentials, 'expiration'> & { expiration: string };
  passwordTicket?: string;
}

function begin(out: SignedIn): Credentials {
  base = { ...out.credentials!, expiration: new Date(out.credentials!.expiration) };
  set({ ...state, notice: '', identity: { account: out.account, arn: out.arn, userName: out.userName ?? '', root: !!out.root, mfa: !!out.mfa, session: out.session } });
  return base;
}

/** Signs in with a password. Returns a ticket when a new one must be set first. */
export async function signIn(account: string, userName: string, password: string, mfaCode: string): Promise<string | null> {
  const out = await post<SignedIn>('/console/signin', { account, userName, password, mfaCode });
  if (out.passwordTicket) return out.passwordTicket;
  begin(out);
  return null;
}

export async function setNewPassword(ticket: string, oldPassword: string, newPassword: string) {
  begin(await post<SignedIn>('/console/signin/password', { ticket, oldPassword, newPassword }));
}

/** Signs in with a long-term access key. The secret key signs, and stays here. */
export async function signInWithKey(accessKeyId: string, secretAccessKey: string) {
  const signer = new SignatureV4({ service: 'signin', region: 'us-east-1', credentials: { accessKeyId, secretAccessKey }, sha256: Sha256 });
  const signed = await signer.sign(
    new HttpRequest({
      method: 'POST',
      protocol: location.protocol,
      hostname: location.hostname,
      port: location.port ? Number(location.port) : undefined,
      path: '/console/signin/key',
      headers: { host: location.host, 'content-type': 'application/json' },
      body: '{}',
    }),
  );
  const { host: _, ...headers } = signed.headers;
  begin(await post<SignedIn>('/console/signin/key', {}, headers));
}

/** Takes up the session of the cookie, if there is one. */
export async function resume(): Promise<void> {
  try {
    await refresh();
  } catch (e) {
    if (!(e instanceof ConsoleError) || e.status !== 401) set({ ...state, notice: (e as Error).message });
  }
}

function refresh(): Promise<Credentials> {
  refreshing ??= post<SignedIn>('/console/refresh')
    .then(begin)
    .finally(() => {
      refreshing = null;
    });
  return refreshing;
}

/** Ends the session here and on the server, which then refuses its credentials. */
export async function signOut() {
  try {
    await post('/console/signout');
  } finally {
    forget('');
  }
}

function forget(notice: string) {
  base = null;
  set({ identity: null, role: null, notice });
}

const soon = (c: Credentials) => c.expiration.getTime() - Date.now() < 5 * 60_000;

/** The user's own credentials, renewed when they are about to expire. */
export async function ownCredentials(): Promise<Credentials> {
  if (base && !soon(base)) return base;
  try {
    return await refresh();
  } catch (e) {
    if (e instanceof ConsoleError && e.status === 401) forget('Your session has ended. Sign in again.');
    throw e;
  }
}

/** The credentials that calls are signed with: the role's, if switched to one. */
export async function credentials(): Promise<Credentials> {
  const role = state.role;
  if (!role) return ownCredentials();
  if (role.credentials.expiration.getTime() - Date.now() < 30_000) {
    set({ ...state, role: null });
    throw new ConsoleError(401, 'RoleExpired', `The session of role ${role.name} has ended; you are yourself again. Switch to the role once more.`, '');
  }
  return role.credentials;
}

export function useRole(role: SwitchedRole | null) {
  set({ ...state, role });
}

export interface ConsoleSession {
  id: string;
  arn: string;
  created: string;
  lastUsed: string;
  expires: string;
  sourceIp: string;
  userAgent: string;
  current: boolean;
}

export const listSessions = () => post<{ sessions: ConsoleSession[] }>('/console/sessions').then((o) => o.sessions);
export const revokeSession = (id: string) => post('/console/sessions/revoke', { id });
