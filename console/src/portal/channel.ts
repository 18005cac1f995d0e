// The WebSocket of one desktop as noVNC wants it. Binary messages are RFB and go to
// noVNC; text is between this page and the relay (package console, heed): how
// long the way takes, what of the clipboard is allowed, the keyboard's layout.

export interface Clipboard {
  fromLocal: boolean;
  toLocal: boolean;
}

const PROTOCOL = 'sealdesk.desktop';

export class Channel {
  // noVNC sets these and looks whether they are there.
  onopen: ((e: Event) => void) | null = null;
  onclose: ((e: CloseEvent) => void) | null = null;
  onerror: ((e: Event) => void) | null = null;
  onmessage: ((e: MessageEvent) => void) | null = null;
  binaryType: BinaryType = 'arraybuffer';

  received = 0; // bytes
  sent = 0;

  private readonly ws: WebSocket;
  private pings = new Map<number, number>();
  private next = 1;
  private alive = performance.now();

  constructor(
    url: string,
    token: string,
    private readonly on: { latency: (ms: number) => void; clipboard: (c: Clipboard) => void; closed: (code: number, reason: string) => void },
  ) {
    this.ws = new WebSocket(url, [PROTOCOL, `token.${token}`]);
    this.ws.binaryType = 'arraybuffer';
    this.ws.onopen = (e) => this.onopen?.(e);
    this.ws.onerror = (e) => this.onerror?.(e);
    this.ws.onclose = (e) => {
      this.onclose?.(e);
      this.on.closed(e.code, e.reason);
    };
    this.ws.onmessage = (e) => {
      this.alive = performance.now();
      if (typeof e.data === 'string') return this.text(e.data);
      this.received += (e.data as ArrayBuffer).byteLength;
      this.onmessage?.(e);
    };
  }

  get protocol() {
    return this.ws.protocol;
  }
  get readyState() {
    return this.ws.readyState;
  }

  send(data: ArrayBufferView<ArrayBuffer>) {
    this.sent += data.byteLength;
    this.ws.send(data);
  }

  close(code?: number, reason?: string) {
    this.ws.close(code, reason);
  }

  private text(s: string) {
    if (s.startsWith('pong ')) {
      const began = this.pings.get(Number(s.slice(5)));
      this.pings.clear();
      if (began !== undefined) this.on.latency(performance.now() - began);
      return;
    }
    try {
      const m = JSON.parse(s) as { clipboard?: Clipboard };
      if (m.clipboard) this.on.clipboard(m.clipboard);
    } catch {
      // A newer relay says something this page does not know.
    }
  }

  /** Measures the way to the relay and back. */
  ping() {
    if (this.ws.readyState !== WebSocket.OPEN) return;
    const n = this.next++;
    this.pings.set(n, performance.now());
    this.ws.send(`ping ${n}`);
  }

  keyboard(layout: string) {
    if (this.ws.readyState === WebSocket.OPEN) this.ws.send(`keyboard ${layout}`);
  }

  /** How long nothing has come, in milliseconds. */
  silence() {
    return performance.now() - this.alive;
  }
}
