// One desktop on the screen: connects, shows, and connects again after a break. The
// desktop itself does not notice: its session goes on in the machine.

import type RFB from '@novnc/novnc';
import { connect, desktops, PortalError } from './api';
import { Channel, type Clipboard } from './channel';

export type Phase = 'connecting' | 'connected' | 'broken' | 'waiting' | 'ended';

export interface Snapshot {
  phase: Phase;
  /** Why it is not connected, for people. */
  reason: string;
  attempt: number;
  latency: number | null; // milliseconds to the relay and back
  rate: number; // bytes a second, received
  clipboard: Clipboard;
  /** What was last copied in the desktop. */
  copied: string;
}

export type Fit = 'resize' | 'scale' | 'actual';

const ENDED = 4000;
const REPLACED = 4001;
const PROTOCOL = 4003;
const SILENT = 12_000; // no answer for so long: the network is gone

export class Connection {
  private state: Snapshot = { phase: 'connecting', reason: '', attempt: 0, latency: null, rate: 0, clipboard: { fromLocal: false, toLocal: false }, copied: '' };
  private readonly listeners = new Set<() => void>();
  private rfb: RFB | null = null;
  private channel: Channel | null = null;
  private timer = 0;
  private retry = 0;
  private counted = 0;
  private stopped = false;
  private busy = false;
  private fit: Fit = 'resize';
  private layout = '';

  constructor(
    readonly id: string,
    private readonly screen: HTMLElement,
  ) {
    this.timer = window.setInterval(() => this.tick(), 2000);
    window.addEventListener('online', this.again);
    void this.open();
  }

  subscribe = (f: () => void) => {
    this.listeners.add(f);
    return () => void this.listeners.delete(f);
  };
  snapshot = () => this.state;

  private set(next: Partial<Snapshot>) {
    this.state = { ...this.state, ...next };
    for (const f of this.listeners) f();
  }

  private async open() {
    if (this.busy || this.stopped) return;
    this.busy = true;
    clearTimeout(this.retry);
    try {
      const [{ path, token }, { default: Client }] = await Promise.all([connect(this.id), import('@novnc/novnc')]);
      if (this.stopped) return;
      this.clear();
      const channel = new Channel(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${path}`, token, {
        latency: (latency) => this.set({ latency }),
        clipboard: (clipboard) => this.set({ clipboard }),
        closed: (code, reason) => channel === this.channel && this.closed(code, reason),
      });
      this.channel = channel;
      this.counted = 0;
      const rfb = new Client(this.screen, channel, { shared: true });
      this.rfb = rfb;
      rfb.background = 'transparent';
      rfb.addEventListener('connect', () => {
        if (this.rfb !== rfb) return;
        this.arrange();
        channel.ping();
        if (this.layout) channel.keyboard(this.layout);
        this.set({ phase: 'connected', reason: '', attempt: 0 });
        rfb.focus();
      });
      rfb.addEventListener('clipboard', (e) => {
        const text = (e as CustomEvent<{ text: string }>).detail.text;
        this.set({ copied: text });
        if (this.state.clipboard.toLocal) navigator.clipboard?.writeText(text).catch(() => {}); // the clipboard panel has it
      });
    } catch (e) {
      this.failed(e);
    } finally {
      this.busy = false;
    }
  }

  private failed(e: unknown) {
    const status = e instanceof PortalError ? e.status : 0;
    const reason = (e as Error).message;
    if (status === 401 || status === 403 || status === 404) return this.set({ phase: 'ended', reason });
    if (status === 409) return this.wait(reason);
    this.retryLater(reason);
  }

  private closed(code: number, reason: string) {
    this.channel = null;
    this.rfb = null;
    if (this.stopped) return;
    if (code === REPLACED || code === PROTOCOL) return this.set({ phase: 'ended', reason, latency: null });
    if (code === ENDED) return this.wait(reason);
    this.retryLater(reason);
  }

  // The network or the screen went away: try again soon, then more slowly.
  private retryLater(reason: string) {
    const attempt = this.state.attempt + 1;
    this.set({ phase: 'broken', reason, attempt, latency: null, rate: 0 });
    this.retry = window.setTimeout(() => void this.open(), Math.min(500 * 2 ** Math.min(attempt - 1, 5), 10_000));
  }

  // The desktop may not be shown now: wait until it may, or until it is clear that it will not.
  private wait(reason: string) {
    this.set({ phase: 'waiting', reason, latency: null, rate: 0 });
    const look = async () => {
      if (this.stopped || this.state.phase !== 'waiting') return;
      try {
        const d = (await desktops()).desktops.find((x) => x.id === this.id);
        if (!d || d.state === 'TERMINATING' || d.state === 'TERMINATED') return this.set({ phase: 'ended', reason: d ? reason : 'The desktop was removed.' });
        if (d.state === 'AVAILABLE') return void this.open();
      } catch (e) {
        const status = e instanceof PortalError ? e.status : 0;
        if (status === 401 || status === 403) return this.set({ phase: 'ended', reason: (e as Error).message });
      }
      this.retry = window.setTimeout(() => void look(), 2000);
    };
    this.retry = window.setTimeout(() => void look(), 1000);
  }

  /** Connects again now, without waiting for the next try. */
  again = () => {
    if (this.state.phase === 'connected' || this.stopped) return;
    this.set({ phase: 'connecting' });
    void this.open();
  };

  private tick() {
    const c = this.channel;
    if (!c) return;
    if (c.silence() > SILENT) {
      // TCP would take minutes to say so, of an open connection and of one that is being made.
      this.clear();
      this.retryLater('The network does not answer.');
      return;
    }
    if (this.state.phase !== 'connected') return;
    this.set({ rate: (c.received - this.counted) / 2 });
    this.counted = c.received;
    c.ping();
  }

  private clear() {
    const { rfb, channel } = this;
    this.rfb = null;
    this.channel = null;
    if (channel && channel.readyState < WebSocket.CLOSING) rfb?.disconnect();
    this.screen.replaceChildren();
  }

  private arrange() {
    if (!this.rfb) return;
    this.rfb.scaleViewport = this.fit !== 'actual';
    this.rfb.resizeSession = this.fit === 'resize';
  }

  setFit(fit: Fit) {
    this.fit = fit;
    this.arrange();
    this.rfb?.focus();
  }

  setLayout(layout: string) {
    this.layout = layout;
    if (layout) this.channel?.keyboard(layout);
    this.rfb?.focus();
  }

  focus() {
    this.rfb?.focus();
  }

  /** Presses keys together; names of KeyboardEvent.code with their keysyms. */
  chord(keys: [number, string][]) {
    for (const [sym, code] of keys) this.rfb?.sendKey(sym, code, true);
    for (const [sym, code] of [...keys].reverse()) this.rfb?.sendKey(sym, code, false);
    this.rfb?.focus();
  }

  /** Puts text in the desktop's clipboard. */
  paste(text: string) {
    if (this.state.clipboard.fromLocal) this.rfb?.clipboardPasteFrom(text);
  }

  stop() {
    this.stopped = true;
    clearInterval(this.timer);
    clearTimeout(this.retry);
    window.removeEventListener('online', this.again);
    this.clear();
  }
}
