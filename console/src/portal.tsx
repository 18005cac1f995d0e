import '@cloudscape-design/global-styles/index.css';
import './lib/theme';
import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Cards from '@cloudscape-design/components/cards';
import Container from '@cloudscape-design/components/container';
import ContentLayout from '@cloudscape-design/components/content-layout';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import Link from '@cloudscape-design/components/link';
import SpaceBetween from '@cloudscape-design/components/space-between';
import TopNavigation from '@cloudscape-design/components/top-navigation';
import { I18nProvider } from '@cloudscape-design/components/i18n';
import { useCallback, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { getLanguage, type Language, messages, setLanguage, t } from './lib/i18n';
import { isDark, setDark } from './lib/theme';
import { Confirm, Empty, ErrorBox, Status, time, useAction } from './lib/ui';
import * as api from './portal/api';
import { Viewer } from './portal/viewer';
import './portal/portal.css';

// A link to a directory: /portal/d-1234567890 or /portal/corp (its alias).
const linked = () => {
  const name = decodeURIComponent(location.pathname.split('/')[2] ?? '');
  return /^[\w.+-]{1,128}$/.test(name) ? name : '';
};

const code = () => {
  try {
    return linked() || localStorage.getItem('sealdesk.directory') || '';
  } catch {
    return linked();
  }
};

function SignIn({ onDone, notice }: { onDone: () => void; notice: string }) {
  const [directory, setDirectory] = useState(code);
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [asked, setAsked] = useState<string | null>(null); // what the directory calls its second factor
  const [mfa, setMfa] = useState('');
  const a = useAction();
  const submit = () =>
    a.run(async () => {
      try {
        await api.signIn(directory.trim(), user.trim(), password, mfa.trim());
      } catch (e) {
        setMfa('');
        if (e instanceof api.PortalError && e.name === 'MFARequired') return setAsked(e.label || t('MFA code'));
        throw e;
      }
      try {
        localStorage.setItem('sealdesk.directory', directory.trim());
      } catch {
        // It is typed again next time.
      }
      setPassword('');
      onDone();
    });
  return (
    <main className="portal-center">
      <div className="portal-box">
        <SpaceBetween size="l">
          <Box textAlign="center" padding={{ top: 'xxl' }}>
            <Box variant="h1" fontSize="display-l">
              Sealdesk
            </Box>
            <Box color="text-body-secondary">{t('Your desktop, in this browser')}</Box>
          </Box>
          {notice && <Alert type="info">{t(notice)}</Alert>}
          <form
            onSubmit={(e) => {
              e.preventDefault();
              void submit();
            }}
          >
            <Container header={<Header variant="h2">{t('Sign in')}</Header>}>
              <SpaceBetween size="m">
                <FormField label={t('Registration code or directory')} description={t('Your administrator gave it to you.')}>
                  <Input name="directory" value={directory} onChange={(e) => (setDirectory(e.detail.value), setAsked(null))} placeholder="SLD1A2B+3C4D5E" autoComplete="organization" />
                </FormField>
                <FormField label={t('User name')}>
                  <Input name="username" value={user} onChange={(e) => setUser(e.detail.value)} autoComplete="username" />
                </FormField>
                <FormField label={t('Password')}>
                  <Input name="password" type="password" value={password} onChange={(e) => setPassword(e.detail.value)} autoComplete="current-password" />
                </FormField>
                {asked !== null && (
                  <FormField label={asked} description={t('Your directory asks for a second factor.')}>
                    <Input name="code" value={mfa} onChange={(e) => setMfa(e.detail.value)} autoComplete="one-time-code" autoFocus />
                  </FormField>
                )}
                <ErrorBox error={a.error} title={t('You are not signed in')} />
                <Box float="right">
                  <Button variant="primary" formAction="submit" loading={a.busy} disabled={!directory.trim() || !user.trim() || !password || (asked !== null && !mfa.trim())}>
                    {t('Sign in')}
                  </Button>
                </Box>
              </SpaceBetween>
            </Container>
          </form>
          <Box textAlign="center" color="text-body-secondary">
            {t('Administrator?')} <Link href="/console/">{t('Management console')}</Link>
          </Box>
        </SpaceBetween>
      </div>
    </main>
  );
}

const CONNECTING: Record<string, string> = {
  PENDING: 'Your desktop is being made. This takes a few minutes.',
  STARTING: 'Your desktop is starting.',
  REBOOTING: 'Your desktop is restarting.',
  REBUILDING: 'Your desktop is being rebuilt.',
  STOPPING: 'Your desktop is being stopped.',
  STOPPED: 'Your desktop is stopped. Start it to connect.',
  ADMIN_MAINTENANCE: 'Your administrator is working on this desktop.',
};

function List({ data, error, onConnect, onChange }: { data: api.Desktops; error: unknown; onConnect: (d: api.PortalDesktop) => void; onChange: () => void }) {
  const a = useAction();
  const [rebooting, setRebooting] = useState<api.PortalDesktop | null>(null);
  return (
    <main className="portal-page">
      <ContentLayout header={<Header variant="h1" description={data.directory}>{t('My desktops')}</Header>}>
        <SpaceBetween size="m">
          <ErrorBox error={a.error ?? error} />
          <Cards
            items={data.desktops}
            trackBy="id"
            ariaLabels={{ itemSelectionLabel: (_, d) => d.id, selectionGroupLabel: t('My desktops') }}
            cardsPerRow={[{ cards: 1 }, { minWidth: 620, cards: 2 }]}
            empty={<Empty title={t('You have no desktop')} text={t('Ask your administrator to launch one for you.')} />}
            cardDefinition={{
              header: (d) => (
                <Box variant="h2" fontSize="heading-m">
                  {d.name || d.id}
                </Box>
              ),
              sections: [
                { id: 'state', header: t('State'), width: 50, content: (d) => <Status value={d.state} label={t(STATES[d.state] ?? d.state)} /> },
                { id: 'used', header: t('Last used'), width: 50, content: (d) => (d.connected ? t('In use now') : d.lastUsed ? time(d.lastUsed) : t('Never')) },
                { id: 'kind', header: t('Kind'), width: 50, content: (d) => `${t(title(d.compute))} · ${t(MODES[d.runningMode] ?? d.runningMode)}` },
                { id: 'id', header: 'WorkSpace', width: 50, content: (d) => d.id },
                {
                  id: 'why',
                  content: (d) => (d.errorMessage ? <Alert type="error">{d.errorMessage}</Alert> : CONNECTING[d.state] ? <Box color="text-body-secondary">{t(CONNECTING[d.state])}</Box> : null),
                },
                {
                  id: 'actions',
                  content: (d) => (
                    <SpaceBetween direction="horizontal" size="xs">
                      <Button variant="primary" disabled={d.state !== 'AVAILABLE'} onClick={() => onConnect(d)} ariaLabel={`${t('Connect')} ${d.name}`}>
                        {t('Connect')}
                      </Button>
                      {d.mayStart && (
                        <Button loading={a.busy} onClick={() => void a.run(() => api.act(d.id, 'start')).finally(onChange)} ariaLabel={`${t('Start')} ${d.name}`}>
                          {t('Start')}
                        </Button>
                      )}
                      {d.mayReboot && (
                        <Button onClick={() => setRebooting(d)} ariaLabel={`${t('Reboot')} ${d.name}`}>
                          {t('Reboot')}
                        </Button>
                      )}
                    </SpaceBetween>
                  ),
                },
              ],
            }}
          />
        </SpaceBetween>
      </ContentLayout>
      {rebooting && (
        <Confirm
          title={`${t('Reboot')} ${rebooting.name}?`}
          button={t('Reboot')}
          onConfirm={() => api.act(rebooting.id, 'reboot')}
          onClose={() => {
            setRebooting(null);
            onChange();
          }}
        >
          {t('Programs are closed; what was not saved is lost. Your files stay.')}
        </Confirm>
      )}
    </main>
  );
}

const STATES: Record<string, string> = { AVAILABLE: 'Ready', PENDING: 'Being made', STOPPED: 'Stopped', STOPPING: 'Stopping', STARTING: 'Starting', REBOOTING: 'Restarting', REBUILDING: 'Rebuilding', ERROR: 'Error', UNHEALTHY: 'Unhealthy', ADMIN_MAINTENANCE: 'Maintenance' };
const MODES: Record<string, string> = { AUTO_STOP: 'stops by itself when not used', ALWAYS_ON: 'always on', MANUAL: 'started and stopped by hand' };
const title = (s: string) => s.charAt(0) + s.slice(1).toLowerCase();

function Portal({ language, onLanguage }: { language: Language; onLanguage: (l: Language) => void }) {
  const [data, setData] = useState<api.Desktops | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [ready, setReady] = useState(false);
  const [notice, setNotice] = useState('');
  const [shown, setShown] = useState<api.PortalDesktop | null>(null);
  const [dark, setDarkState] = useState(isDark());
  const load = useCallback(
    () =>
      api.desktops().then(
        (d) => {
          setData(d);
          setError(null);
        },
        (e: api.PortalError) => {
          if (e.status === 401 || e.status === 403) {
            setData((was) => {
              if (was) setNotice(e.status === 403 ? e.message : 'Your session has ended. Sign in again.');
              return null;
            });
          } else setError(e);
        },
      ),
    [],
  );
  useEffect(() => {
    load().finally(() => setReady(true));
  }, [load]);
  useEffect(() => {
    if (!data || shown) return undefined;
    const timer = setInterval(() => document.visibilityState === 'visible' && void load(), 3000);
    return () => clearInterval(timer);
  }, [data === null, shown, load]);
  useEffect(() => {
    document.title = shown ? `${shown.name || shown.id} - Sealdesk` : 'Sealdesk Desktops';
  }, [shown]);

  if (!ready) return null;
  if (shown) {
    return (
      <Viewer
        id={shown.id}
        name={shown.name || shown.id}
        onLeave={() => {
          setShown(null);
          void load();
        }}
      />
    );
  }
  return (
    <>
      <div id="top">
        <TopNavigation
          identity={{ href: '/portal/', title: 'Sealdesk' }}
          utilities={[
            { type: 'button', text: language === 'ja' ? 'English' : '日本語', onClick: () => onLanguage(language === 'ja' ? 'en' : 'ja') },
            {
              type: 'button',
              text: dark ? t('Light mode') : t('Dark mode'),
              onClick: () => {
                setDark(!dark);
                setDarkState(!dark);
              },
            },
            ...(data
              ? [
                  {
                    type: 'menu-dropdown' as const,
                    text: data.user,
                    iconName: 'user-profile' as const,
                    items: [{ id: 'out', text: t('Sign out') }],
                    onItemClick: () => void api.signOut().finally(() => setData(null)),
                  },
                ]
              : []),
          ]}
        />
      </div>
      {data ? (
        <List data={data} error={error} onConnect={setShown} onChange={() => void load()} />
      ) : (
        <>
          <ErrorBox error={error} />
          <SignIn
            notice={notice}
            onDone={() => {
              setNotice('');
              void load();
            }}
          />
        </>
      )}
    </>
  );
}

function App() {
  const [language, set] = useState<Language>(getLanguage());
  const [texts, setTexts] = useState<{ default: object } | null>(null);
  useEffect(() => {
    setLanguage(language);
    messages(language).then((m) => setTexts(m as never));
  }, [language]);
  if (!texts) return null;
  return (
    <I18nProvider locale={language} messages={[texts.default as never]}>
      <Portal
        language={language}
        onLanguage={(l) => {
          setLanguage(l);
          set(l);
        }}
      />
    </I18nProvider>
  );
}

createRoot(document.getElementById('root')!).render(<App />);
