// The desktop in the page, with the few things a window around a desktop needs.

import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import Container from '@cloudscape-design/components/container';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Spinner from '@cloudscape-design/components/spinner';
import Textarea from '@cloudscape-design/components/textarea';
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { t } from '../lib/i18n';
import { Connection, type Fit, type Snapshot } from './connection';
import { keep, kept, KEYBOARDS, keyboardOf } from './keyboards';

const CHORDS: Record<string, [number, string][]> = {
  'ctrl-alt-del': [[0xffe3, 'ControlLeft'], [0xffe9, 'AltLeft'], [0xffff, 'Delete']],
  'ctrl-alt-t': [[0xffe3, 'ControlLeft'], [0xffe9, 'AltLeft'], [0x74, 'KeyT']],
  'alt-tab': [[0xffe9, 'AltLeft'], [0xff09, 'Tab']],
  'alt-f2': [[0xffe9, 'AltLeft'], [0xffbf, 'F2']],
  super: [[0xffeb, 'MetaLeft']],
};

export function Viewer({ id, name, onLeave }: { id: string; name: string; onLeave: () => void }) {
  const screen = useRef<HTMLDivElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const [connection, setConnection] = useState<Connection | null>(null);
  const [clip, setClip] = useState(false);
  useEffect(() => {
    const c = new Connection(id, screen.current!);
    setConnection(c);
    return () => c.stop();
  }, [id]);
  return (
    <main className="desk" ref={frame} aria-label={`${t('Desktop')} ${name}`}>
      {connection ? <Bar connection={connection} name={name} frame={frame} clip={clip} onClip={setClip} onLeave={onLeave} /> : <div className="desk-bar" />}
      <div className="desk-main">
        <div className="desk-screen" ref={screen} data-testid="screen" />
        {connection && clip && <Clip connection={connection} onClose={() => setClip(false)} />}
        {connection && <Over connection={connection} onLeave={onLeave} />}
      </div>
    </main>
  );
}

const useSnapshot = (c: Connection): Snapshot => useSyncExternalStore(c.subscribe, c.snapshot);

const rate = (n: number) => (n < 1024 ? `${Math.round(n)} B/s` : n < 1 << 20 ? `${(n / 1024).toFixed(0)} KiB/s` : `${(n / (1 << 20)).toFixed(1)} MiB/s`);

interface BarProps {
  connection: Connection;
  name: string;
  frame: React.RefObject<HTMLDivElement | null>;
  clip: boolean;
  onClip: (open: boolean) => void;
  onLeave: () => void;
}

function Bar({ connection, name, frame, clip, onClip, onLeave }: BarProps) {
  const s = useSnapshot(connection);
  const [fit, setFit] = useState<Fit>(() => kept('fit', ['resize', 'scale', 'actual'], 'resize') as Fit);
  const [layout, setLayout] = useState(() => kept('keyboard', KEYBOARDS.map((k) => k.id), keyboardOf(navigator.language)));
  const [full, setFull] = useState(false);
  useEffect(() => connection.setFit(fit), [connection, fit]);
  useEffect(() => connection.setLayout(layout), [connection, layout]);
  useEffect(() => {
    const on = () => {
      setFull(!!document.fullscreenElement);
      connection.focus();
    };
    document.addEventListener('fullscreenchange', on);
    return () => document.removeEventListener('fullscreenchange', on);
  }, [connection]);
  // What was copied on this device since is what the desktop pastes.
  const last = useRef('');
  const mayPaste = s.clipboard.fromLocal && s.phase === 'connected';
  const take = useCallback(() => {
    if (!mayPaste || !navigator.clipboard?.readText) return;
    navigator.clipboard.readText().then(
      (text) => {
        if (text && text !== last.current) connection.paste((last.current = text));
      },
      () => {}, // not allowed by the browser: the panel does it by hand
    );
  }, [connection, mayPaste]);
  useEffect(() => {
    take();
    window.addEventListener('focus', take);
    return () => window.removeEventListener('focus', take);
  }, [take]);
  useEffect(() => {
    last.current = s.copied || last.current;
  }, [s.copied]);

  const fullScreen = async () => {
    if (document.fullscreenElement) return document.exitFullscreen();
    await frame.current?.requestFullscreen();
    // Keys such as Alt+Tab and Escape go to the desktop, where the browser can.
    await (navigator as { keyboard?: { lock?: () => Promise<void> } }).keyboard?.lock?.().catch(() => {});
  };
  const quality = s.phase !== 'connected' || s.latency === null ? '' : s.latency < 60 ? 'good' : s.latency < 180 ? 'fair' : 'poor';
  const noClip = !s.clipboard.fromLocal && !s.clipboard.toLocal;

  return (
    <div className="desk-bar awsui-dark-mode">
      <Button iconName="angle-left" ariaLabel={t('Back to my desktops')} onClick={onLeave} />
      <span className="desk-name">{name}</span>
      <span className="desk-meter" role="status" data-testid="meter" title={t('The time to the server and back, and what arrives')}>
        <span className={`desk-dot ${quality}`} aria-hidden="true" />
        {s.phase === 'connected' ? `${s.latency === null ? '…' : `${s.latency.toFixed(s.latency < 10 ? 1 : 0)} ms`} · ${rate(s.rate)}` : t(PHASES[s.phase])}
      </span>
      <span className="desk-space" />
      <ButtonDropdown
        expandToViewport
        items={KEYBOARDS.map((k) => ({ id: k.id, text: t(k.name), itemType: 'checkbox' as const, checked: k.id === layout }))}
        onItemClick={(e) => {
          setLayout(e.detail.id);
          keep('keyboard', e.detail.id);
        }}
      >
        {`${t('Keyboard')}: ${layout.toUpperCase()}`}
      </ButtonDropdown>
      <ButtonDropdown
        expandToViewport
        items={Object.keys(CHORDS).map((c) => ({ id: c, text: c.split('-').map((k) => k[0].toUpperCase() + k.slice(1)).join(' + ') }))}
        onItemClick={(e) => connection.chord(CHORDS[e.detail.id])}
        disabled={s.phase !== 'connected'}
      >
        {t('Send keys')}
      </ButtonDropdown>
      <ButtonDropdown
        expandToViewport
        items={FITS.map(([id, text]) => ({ id, text: t(text), itemType: 'checkbox' as const, checked: id === fit }))}
        onItemClick={(e) => {
          setFit(e.detail.id as Fit);
          keep('fit', e.detail.id);
        }}
      >
        {t('View')}
      </ButtonDropdown>
      <Button
        iconName="copy"
        onClick={() => onClip(!clip)}
        ariaExpanded={clip}
        disabled={s.phase === 'connected' && noClip}
        disabledReason={t('The clipboard is switched off by your administrator.')}
      >
        {t('Clipboard')}
      </Button>
      <Button iconName={full ? 'exit-full-screen' : 'full-screen'} ariaLabel={full ? t('Leave full screen') : t('Full screen')} onClick={() => void fullScreen()} />
    </div>
  );
}

const PHASES = { connecting: 'Connecting', connected: 'Connected', broken: 'Reconnecting', waiting: 'Waiting for the desktop', ended: 'Not connected' };
const FITS: [Fit, string][] = [
  ['resize', 'Fit the desktop to the window'],
  ['scale', 'Scale the picture'],
  ['actual', 'Actual size'],
];

function Clip({ connection, onClose }: { connection: Connection; onClose: () => void }) {
  const s = useSnapshot(connection);
  const [text, setText] = useState('');
  const off = t('The clipboard is switched off by your administrator.');
  return (
    <div className="desk-clip" onKeyDown={(e) => e.stopPropagation()}>
      <Container header={<Header variant="h3" actions={<Button iconName="close" variant="icon" ariaLabel={t('Close')} onClick={onClose} />}>{t('Clipboard')}</Header>}>
        <SpaceBetween size="m">
          <FormField label={t('To the desktop')} description={s.clipboard.fromLocal ? t('Text to paste there, with Ctrl+V.') : off}>
            <SpaceBetween size="xs">
              <Textarea value={text} onChange={(e) => setText(e.detail.value)} rows={3} disabled={!s.clipboard.fromLocal} ariaLabel={t('To the desktop')} />
              <Button onClick={() => connection.paste(text)} disabled={!text || !s.clipboard.fromLocal || s.phase !== 'connected'}>
                {t('Put it in the clipboard')}
              </Button>
            </SpaceBetween>
          </FormField>
          <FormField label={t('From the desktop')} description={s.clipboard.toLocal ? t('What was last copied there.') : off}>
            <Textarea value={s.clipboard.toLocal ? s.copied : ''} readOnly rows={3} disabled={!s.clipboard.toLocal} ariaLabel={t('From the desktop')} />
          </FormField>
        </SpaceBetween>
      </Container>
    </div>
  );
}

// What is said over the picture while there is no connection.
function Over({ connection, onLeave }: { connection: Connection; onLeave: () => void }) {
  const s = useSnapshot(connection);
  if (s.phase === 'connected') return null;
  return (
    <div className="desk-over">
      <div className="desk-card" role="alert">
        <Container header={<Header variant="h2">{t(PHASES[s.phase])}</Header>}>
          <SpaceBetween size="m">
            {s.phase !== 'ended' && <Spinner size="large" />}
            {s.reason && <Box>{t(s.reason)}</Box>}
            {s.phase === 'broken' && <Box color="text-body-secondary">{`${t('Your desktop goes on running; nothing is lost.')} ${t('Attempt')} ${s.attempt}`}</Box>}
            {s.phase === 'waiting' && <Box color="text-body-secondary">{t('It is shown again as soon as it is available.')}</Box>}
            <SpaceBetween direction="horizontal" size="xs">
              {(s.phase === 'ended' || s.phase === 'broken') && <Button onClick={connection.again}>{t('Connect again')}</Button>}
              <Button variant="link" onClick={onLeave}>
                {t('Back to my desktops')}
              </Button>
            </SpaceBetween>
          </SpaceBetween>
        </Container>
      </div>
    </div>
  );
}
