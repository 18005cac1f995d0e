// What the portal's page asks of the server: sign-in, desktops, the right to connect.

export class PortalError extends Error {
  constructor(
    readonly status: number,
    name: string,
    message: string,
    readonly requestId: string,
    /** What the directory calls the code it asks for. */
    readonly label = '',
  ) {
    super(message);
    this.name = name;
  }
}

// A request that gets no answer in a silent network would wait for minutes.
const PATIENCE = 12_000;

async function post<T>(path: string, body: unknown = {}, patience = PATIENCE): Promise<T> {
  let r: Response;
  try {
    r = await fetch(`/portal/${path}`, { method: 'POST', credentials: 'same-origin', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal: AbortSignal.timeout(patience) });
  } catch {
    throw new PortalError(0, 'NetworkError', 'The server cannot be reached. Check the network and try again.', '');
  }
  const out = await r.json().catch(() => ({}));
  if (!r.ok) throw new PortalError(r.status, out.code ?? 'Error', out.message ?? `The server answered ${r.status}.`, out.requestId ?? '', out.label ?? '');
  return out as T;
}

export interface PortalDesktop {
  id: string;
  name: string;
  state: string;
  compute: string;
  runningMode: string;
  connected: boolean;
  lastUsed?: string;
  encrypted: boolean;
  errorMessage?: string;
  mayStart: boolean;
  mayReboot: boolean;
}

export interface Desktops {
  user: string;
  directory: string;
  desktops: PortalDesktop[];
}

/** Servers of second factors may be slow, and a person may have to press a button first. */
export const signIn = (directory: string, userName: string, password: string, code: string) => post('signin', { directory, userName, password, code }, 90_000);
export const signOut = () => post('signout');
export const desktops = () => post<Desktops>('desktops');
export const act = (workspaceId: string, action: 'start' | 'reboot') => post('action', { workspaceId, action });
export const connect = (workspaceId: string) => post<{ path: string; token: string }>('connect', { workspaceId });
