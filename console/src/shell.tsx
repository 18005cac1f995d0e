import AppLayout from '@cloudscape-design/components/app-layout';
import Autosuggest from '@cloudscape-design/components/autosuggest';
import Box from '@cloudscape-design/components/box';
import Flashbar from '@cloudscape-design/components/flashbar';
import FormField from '@cloudscape-design/components/form-field';
import Input from '@cloudscape-design/components/input';
import SideNavigation, { type SideNavigationProps } from '@cloudscape-design/components/side-navigation';
import Spinner from '@cloudscape-design/components/spinner';
import TopNavigation from '@cloudscape-design/components/top-navigation';
import { lazy, Suspense, useCallback, useEffect, useState, useSyncExternalStore } from 'react';
import { Navigate, Route, Routes, useLocation, useNavigate } from 'react-router';
import { switchRole } from './lib/clients';
import { type Language, t } from './lib/i18n';
import { REGIONS } from './lib/regions';
import * as session from './lib/session';
import { isDark, setDark } from './lib/theme';
import { Confirm, type Note, NoteContext, RegionContext, useFollow } from './lib/ui';

const Home = lazy(() => import('./pages/home'));
const Keys = lazy(() => import('./pages/kms-list'));
const Key = lazy(() => import('./pages/kms-key'));
const CreateKey = lazy(() => import('./pages/kms-create'));
const Stores = lazy(() => import('./pages/kms-stores'));
const StorePage = lazy(() => import('./pages/kms-stores').then((m) => ({ default: m.StorePage })));
const CreateStore = lazy(() => import('./pages/kms-stores').then((m) => ({ default: m.CreateStore })));
const WorkSpaces = lazy(() => import('./pages/workspaces-list'));
const WorkSpace = lazy(() => import('./pages/workspaces-detail'));
const Launch = lazy(() => import('./pages/workspaces-launch'));
const Directories = lazy(() => import('./pages/directories'));
const Directory = lazy(() => import('./pages/directory'));
const Volumes = lazy(() => import('./pages/ec2'));
const Events = lazy(() => import('./pages/cloudtrail'));
const Iam = lazy(() => import('./pages/iam'));
const IamEntity = lazy(() => import('./pages/iam-entity'));
const Simulator = lazy(() => import('./pages/iam-simulator'));
const Sessions = lazy(() => import('./pages/sessions'));

const SERVICES = [
  { name: 'WorkSpaces', href: '/workspaces', words: 'desktop vdi' },
  { name: 'Key Management Service', href: '/kms/customer', words: 'kms keys encryption' },
  { name: 'Directory Service', href: '/directories', words: 'users ad sid' },
  { name: 'EC2 volumes and snapshots', href: '/ec2/volumes', words: 'ebs disk' },
  { name: 'IAM', href: '/iam/users', words: 'users roles policies groups' },
  { name: 'CloudTrail', href: '/cloudtrail', words: 'audit events history' },
];

function navigation(path: string): { header: SideNavigationProps['header']; items: SideNavigationProps.Item[] } {
  const link = (text: string, href: string): SideNavigationProps.Item => ({ type: 'link', text: t(text), href: `/console${href}` });
  const head = (text: string, href: string) => ({ text: t(text), href: `/console${href}` });
  if (path.startsWith('/kms')) return { header: head('Key Management Service (KMS)', '/kms/customer'), items: [link('AWS managed keys', '/kms/managed'), link('Customer managed keys', '/kms/customer'), link('Custom key stores', '/kms/stores')] };
  if (path.startsWith('/workspaces')) return { header: head('WorkSpaces', '/workspaces'), items: [link('WorkSpaces', '/workspaces'), link('Launch WorkSpaces', '/workspaces/launch'), link('Directories', '/directories')] };
  if (path.startsWith('/director')) return { header: head('Directory Service', '/directories'), items: [link('Directories', '/directories'), link('WorkSpaces', '/workspaces')] };
  if (path.startsWith('/ec2')) return { header: head('Elastic Block Store', '/ec2/volumes'), items: [link('Volumes', '/ec2/volumes'), link('Snapshots', '/ec2/snapshots')] };
  if (path.startsWith('/iam')) return { header: head('Identity and Access Management (IAM)', '/iam/users'), items: [link('Users', '/iam/users'), link('Groups', '/iam/groups'), link('Roles', '/iam/roles'), link('Policies', '/iam/policies'), link('Policy simulator', '/iam/simulator')] };
  return { header: head('Sealdesk', '/'), items: SERVICES.map((s) => link(s.name, s.href)) };
}

function keptRegion() {
  try {
    const r = localStorage.getItem('sealdesk.region');
    return REGIONS.some(([id]) => id === r) ? r! : 'us-east-1';
  } catch {
    return 'us-east-1';
  }
}

// Pages below a list: the list is what the navigation marks.
const HOME_OF: [RegExp, string][] = [
  [/^\/kms\/(keys\/|create)/, '/kms/customer'],
  [/^\/kms\/stores\//, '/kms/stores'],
  ...['users', 'groups', 'roles', 'policies'].map((k): [RegExp, string] => [new RegExp(`^/iam/${k}/`), `/iam/${k}`]),
];

const GLOBAL = /^\/(iam|sessions)/;

export function Shell({ language, onLanguage }: { language: Language; onLanguage: (l: Language) => void }) {
  const { identity, role } = useSyncExternalStore(session.subscribe, session.getState);
  const [region, setRegion] = useState(keptRegion);
  const [dark, setDarkState] = useState(isDark());
  const [notes, setNotes] = useState<Note[]>([]);
  const [switching, setSwitching] = useState(false);
  const [open, setOpen] = useState(() => window.innerWidth > 900);
  const [search, setSearch] = useState('');
  const { pathname } = useLocation();
  const navigate = useNavigate();
  const follow = useFollow();
  const note = useCallback((n: Omit<Note, 'id'>) => setNotes((all) => [{ ...n, id: crypto.randomUUID?.() ?? String(Math.random()) }, ...all].slice(0, 5)), []);
  useEffect(() => setNotes((all) => all.filter((n) => n.type === 'success')), [pathname]);
  const nav = navigation(pathname);

  const pick = (id: string) => {
    setRegion(id);
    try {
      localStorage.setItem('sealdesk.region', id);
    } catch {
      // It lasts as long as the page.
    }
  };
  const regionName = REGIONS.find(([id]) => id === region)?.[1] ?? region;
  const place = GLOBAL.test(pathname) ? t('Global') : regionName.replace(/^.*\((.*)\)$/, '$1');
  const who = role ? `${role.name} @ ${role.account}` : identity!.root ? `root @ ${identity!.account}` : `${identity!.userName} @ ${identity!.account}`;

  return (
    <RegionContext.Provider value={region}>
      <NoteContext.Provider value={note}>
        <div id="top">
          <TopNavigation
            identity={{ href: '/console/', title: 'Sealdesk', onFollow: (e) => (e.preventDefault(), navigate('/')) }}
            search={
              <Autosuggest
                ariaLabel={t('Search services')}
                placeholder={t('Search services')}
                value={search}
                onChange={(e) => setSearch(e.detail.value)}
                onSelect={(e) => {
                  const s = SERVICES.find((x) => x.name === e.detail.value);
                  if (s) navigate(s.href);
                  setSearch('');
                }}
                options={SERVICES.map((s) => ({ value: s.name, label: t(s.name), filteringTags: s.words.split(' ') }))}
                enteredTextLabel={(v) => v}
                empty={t('No matches')}
              />
            }
            utilities={[
              {
                type: 'menu-dropdown',
                text: place,
                ariaLabel: `${t('Region')}: ${place}`,
                title: regionName,
                items: REGIONS.map(([id, name]) => ({ id, text: `${name}  ${id}`, disabled: GLOBAL.test(pathname) })),
                onItemClick: (e) => pick(e.detail.id),
              },
              {
                type: 'menu-dropdown',
                iconName: 'settings',
                ariaLabel: t('Settings'),
                title: t('Settings'),
                items: [
                  { id: 'mode', text: dark ? t('Light mode') : t('Dark mode') },
                  { id: 'language', text: language === 'ja' ? 'English' : '日本語' },
                ],
                onItemClick: (e) => {
                  if (e.detail.id === 'language') onLanguage(language === 'ja' ? 'en' : 'ja');
                  else {
                    setDark(!dark);
                    setDarkState(!dark);
                  }
                },
              },
              {
                type: 'menu-dropdown',
                text: who,
                description: role ? role.roleArn : identity!.arn,
                iconName: 'user-profile',
                ariaLabel: `${t('Account')}: ${who}`,
                items: [
                  ...(role ? [{ id: 'back', text: t('Switch back') }] : []),
                  { id: 'switch', text: t('Switch role') },
                  { id: 'sessions', text: t('My sessions') },
                  { id: 'signout', text: t('Sign out') },
                ],
                onItemClick: (e) => {
                  if (e.detail.id === 'signout') void session.signOut();
                  if (e.detail.id === 'switch') setSwitching(true);
                  if (e.detail.id === 'back') session.useRole(null);
                  if (e.detail.id === 'sessions') navigate('/sessions');
                },
              },
            ]}
          />
        </div>
        <AppLayout
          headerSelector="#top"
          toolsHide
          navigationOpen={open}
          onNavigationChange={(e) => setOpen(e.detail.open)}
          navigation={<SideNavigation header={nav.header} items={nav.items} activeHref={`/console${HOME_OF.find(([r]) => r.test(pathname))?.[1] ?? pathname}`} onFollow={follow} />}
          ariaLabels={{ navigation: t('Navigation'), navigationToggle: t('Open navigation'), navigationClose: t('Close navigation'), notifications: t('Notifications') }}
          notifications={
            <Flashbar
              items={notes.map((n) => ({ ...n, dismissible: true, dismissLabel: t('Dismiss'), onDismiss: () => setNotes((all) => all.filter((x) => x.id !== n.id)) }))}
              i18nStrings={{ ariaLabel: t('Notifications') }}
            />
          }
          content={
            <Suspense fallback={<Box textAlign="center" padding="xxl"><Spinner size="large" /></Box>}>
              <div key={`${region}:${role?.roleArn ?? ''}`}>
                <Routes>
                  <Route path="/" element={<Home services={SERVICES} />} />
                  <Route path="/kms" element={<Navigate to="/kms/customer" replace />} />
                  <Route path="/kms/customer" element={<Keys managed={false} key="customer" />} />
                  <Route path="/kms/managed" element={<Keys managed key="managed" />} />
                  <Route path="/kms/create" element={<CreateKey />} />
                  <Route path="/kms/keys/:id" element={<Key />} />
                  <Route path="/kms/stores" element={<Stores />} />
                  <Route path="/kms/stores/create" element={<CreateStore />} />
                  <Route path="/kms/stores/:id" element={<StorePage />} />
                  <Route path="/workspaces" element={<WorkSpaces />} />
                  <Route path="/workspaces/launch" element={<Launch />} />
                  <Route path="/workspaces/:id" element={<WorkSpace />} />
                  <Route path="/directories" element={<Directories />} />
                  <Route path="/directories/:id" element={<Directory />} />
                  <Route path="/ec2/volumes" element={<Volumes kind="volumes" key="v" />} />
                  <Route path="/ec2/snapshots" element={<Volumes kind="snapshots" key="s" />} />
                  <Route path="/cloudtrail" element={<Events />} />
                  <Route path="/iam/simulator" element={<Simulator />} />
                  <Route path="/iam/:kind" element={<Iam />} />
                  <Route path="/iam/:kind/:name" element={<IamEntity />} />
                  <Route path="/sessions" element={<Sessions />} />
                  <Route path="*" element={<Navigate to="/" replace />} />
                </Routes>
              </div>
            </Suspense>
          }
        />
        {switching && <SwitchRole account={identity!.account} name={identity!.userName || 'root'} onClose={() => setSwitching(false)} />}
      </NoteContext.Provider>
    </RegionContext.Provider>
  );
}

function SwitchRole({ account, name, onClose }: { account: string; name: string; onClose: () => void }) {
  const [acct, setAcct] = useState(account);
  const [role, setRole] = useState('');
  return (
    <Confirm title={t('Switch role')} button={t('Switch role')} disabled={!role} onConfirm={() => switchRole(acct.trim(), role.trim(), name)} onClose={onClose}>
      <Box>{t('You get what the role may do, and lose what you may do yourself, until you switch back.')}</Box>
      <FormField label={t('Account ID')}>
        <Input value={acct} onChange={(e) => setAcct(e.detail.value)} />
      </FormField>
      <FormField label={t('Role name or ARN')}>
        <Input value={role} onChange={(e) => setRole(e.detail.value)} />
      </FormField>
    </Confirm>
  );
}
