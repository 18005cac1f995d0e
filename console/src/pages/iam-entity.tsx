import BreadcrumbGroup from '@cloudscape-design/components/breadcrumb-group';
import Button from '@cloudscape-design/components/button';
import Container from '@cloudscape-design/components/container';
import Header from '@cloudscape-design/components/header';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Spinner from '@cloudscape-design/components/spinner';
import Tabs, { type TabsProps } from '@cloudscape-design/components/tabs';
import { useState } from 'react';
import { useParams, useSearchParams } from 'react-router';
import { document, iam, iamAll, type Kind, WORD } from '../lib/iam';
import { t } from '../lib/i18n';
import { mistake, PolicyEditor } from '../lib/policy-editor';
import { Confirm, Copy, Empty, ErrorBox, List, Status, time, useAction, useFollow, useLoad, useNote } from '../lib/ui';
import { Credentials } from './iam-credentials';
import { ChooseMany, Permissions } from './iam-permissions';

const TITLE: Record<Kind, string> = { users: 'Users', groups: 'Groups', roles: 'Roles', policies: 'Policies' };

export default function IamEntity() {
  const { kind = 'users', name = '' } = useParams();
  const k = kind as Kind;
  const follow = useFollow();
  const [search, setSearch] = useSearchParams();
  const load = useLoad(async () => {
    if (k === 'policies') return (await iam('GetPolicy', { PolicyArn: name })).Policy;
    return (await iam(`Get${WORD[k]}`, { [`${WORD[k]}Name`]: name }))[WORD[k]];
  }, [k, name]);
  const e = load.data;
  const shown = k === 'policies' ? (name.split('/').pop() ?? name) : name;
  const tabs: TabsProps.Tab[] =
    k === 'policies'
      ? [
          { id: 'document', label: t('Permissions'), content: e && <PolicyVersions arn={name} onChange={load.reload} /> },
          { id: 'entities', label: t('Entities attached'), content: <AttachedTo arn={name} /> },
        ]
      : [
          { id: 'permissions', label: t('Permissions'), content: <Permissions kind={k} name={name} /> },
          ...(k === 'users'
            ? [
                { id: 'groups', label: t('Groups'), content: <Members user={name} /> },
                { id: 'credentials', label: t('Security credentials'), content: <Credentials user={name} /> },
              ]
            : []),
          ...(k === 'groups' ? [{ id: 'users', label: t('Users'), content: <Members group={name} /> }] : []),
          ...(k === 'roles' ? [{ id: 'trust', label: t('Trust relationships'), content: e && <Trust role={name} text={document(e.AssumeRolePolicyDocument)} onChange={load.reload} /> }] : []),
        ];
  const tab = search.get('tab') ?? tabs[0].id;
  return (
    <SpaceBetween size="l">
      <BreadcrumbGroup
        ariaLabel={t('Breadcrumbs')}
        onFollow={follow}
        items={[
          { text: 'IAM', href: '/console/iam/users' },
          { text: t(TITLE[k]), href: `/console/iam/${k}` },
          { text: shown, href: '' },
        ]}
      />
      <Header variant="h1">{shown}</Header>
      <ErrorBox error={load.error} title={`${shown}: ${t('not loaded')}`} />
      {!e && !load.error && <Spinner size="large" />}
      {e && (
        <Container header={<Header variant="h2">{t('Summary')}</Header>}>
          <KeyValuePairs
            columns={3}
            items={[
              { label: 'ARN', value: <Copy text={e.Arn} /> },
              { label: t('Created'), value: time(e.CreateDate) },
              ...(k === 'users' ? [{ label: t('Last sign-in to the console'), value: time(e.PasswordLastUsed) }] : []),
              ...(k === 'roles'
                ? [
                    { label: t('Last used'), value: time(e.RoleLastUsed?.LastUsedDate) },
                    { label: t('Maximum session duration'), value: `${(e.MaxSessionDuration ?? 3600) / 3600} ${t('hours')}` },
                  ]
                : []),
              ...(k === 'policies'
                ? [
                    { label: t('Type'), value: name.includes('::aws:policy/') ? t('AWS managed') : t('Customer managed') },
                    { label: t('Default version'), value: e.DefaultVersionId },
                  ]
                : []),
              ...(e.Description ? [{ label: t('Description'), value: e.Description }] : []),
              ...(e.PermissionsBoundary ? [{ label: t('Permissions boundary'), value: e.PermissionsBoundary.PermissionsBoundaryArn }] : []),
            ]}
          />
        </Container>
      )}
      {e && <Tabs ariaLabel={t('About it')} tabs={tabs} activeTabId={tabs.some((x) => x.id === tab) ? tab : tabs[0].id} onChange={(x) => setSearch({ tab: x.detail.activeTabId }, { replace: true })} />}
    </SpaceBetween>
  );
}

/** The groups of a user, or the users of a group. */
function Members({ user, group }: { user?: string; group?: string }) {
  const note = useNote();
  const load = useLoad<string[]>(
    async () => (user ? (await iamAll('ListGroupsForUser', 'Groups', { UserName: user })).map((g) => g.GroupName) : (await iamAll('GetGroup', 'Users', { GroupName: group })).map((u) => u.UserName)),
    [user, group],
  );
  const [adding, setAdding] = useState(false);
  const [gone, setGone] = useState<string[] | null>(null);
  const pair = (x: string) => ({ UserName: user ?? x, GroupName: group ?? x });
  const title = user ? t('Groups') : t('Users');
  return (
    <>
      <List
        title={title}
        variant="container"
        load={{ ...load, data: load.data?.map((name) => ({ name })), reload: load.reload }}
        trackBy="name"
        text={(x) => x.name}
        selection="multi"
        empty={<Empty title={user ? t('In no group') : t('No users in this group')} text={t('Choose Add.')} />}
        actions={(selected) => (
          <>
            <Button disabled={selected.length === 0} onClick={() => setGone(selected.map((x) => x.name))}>
              {t('Remove')}
            </Button>
            <Button onClick={() => setAdding(true)}>{t('Add')}</Button>
          </>
        )}
        columns={[{ id: 'name', header: t('Name'), cell: (x) => x.name, isRowHeader: true }]}
      />
      {adding && (
        <ChooseMany
          title={user ? t('Add to groups') : t('Add users')}
          load={async () => (user ? (await iamAll('ListGroups', 'Groups')).map((g) => ({ id: g.GroupName, name: g.GroupName })) : (await iamAll('ListUsers', 'Users')).map((u) => ({ id: u.UserName, name: u.UserName })))}
          without={load.data ?? []}
          onAdd={async (ids) => {
            for (const id of ids) await iam('AddUserToGroup', pair(id));
            note({ type: 'success', content: t('Added.') });
          }}
          onClose={() => {
            setAdding(false);
            load.reload();
          }}
        />
      )}
      {gone && (
        <Confirm
          title={t('Remove')}
          button={t('Remove')}
          onConfirm={async () => {
            for (const x of gone) await iam('RemoveUserFromGroup', pair(x));
          }}
          onClose={() => {
            setGone(null);
            load.reload();
          }}
        >
          {gone.join(', ')}
        </Confirm>
      )}
    </>
  );
}

function Trust({ role, text, onChange }: { role: string; text: string; onChange: () => void }) {
  const [edited, setEdited] = useState<string | null>(null);
  const a = useAction();
  const note = useNote();
  const save = async () => {
    await iam('UpdateAssumeRolePolicy', { RoleName: role, PolicyDocument: edited });
    note({ type: 'success', content: t('The trust policy is saved.') });
    setEdited(null);
    onChange();
  };
  return (
    <Container header={<Header variant="h2" description={t('Who can switch to this role.')} actions={edited === null && <Button onClick={() => setEdited(text)}>{t('Edit')}</Button>}>{t('Trusted entities')}</Header>}>
      <SpaceBetween size="m">
        <PolicyEditor label={t('Trust policy')} value={edited ?? text} onChange={setEdited} readOnly={edited === null} rows={16} limit={2048} />
        <ErrorBox error={a.error} title={t('The trust policy is not saved')} />
        {edited !== null && (
          <SpaceBetween direction="horizontal" size="xs">
            <Button variant="link" onClick={() => setEdited(null)}>
              {t('Cancel')}
            </Button>
            <Button variant="primary" loading={a.busy} disabled={!!mistake(edited)} onClick={() => a.run(save)}>
              {t('Save changes')}
            </Button>
          </SpaceBetween>
        )}
      </SpaceBetween>
    </Container>
  );
}

/** A managed policy: its document, and its versions. */
function PolicyVersions({ arn, onChange }: { arn: string; onChange: () => void }) {
  const note = useNote();
  const a = useAction();
  const own = !arn.includes('::aws:policy/');
  const load = useLoad(async () => {
    const versions = await iamAll('ListPolicyVersions', 'Versions', { PolicyArn: arn });
    const now = versions.find((v) => v.IsDefaultVersion);
    const { PolicyVersion } = await iam('GetPolicyVersion', { PolicyArn: arn, VersionId: now.VersionId });
    return { versions, text: document(PolicyVersion.Document) };
  }, [arn]);
  const [edited, setEdited] = useState<string | null>(null);
  const save = async () => {
    // IAM keeps five versions: the oldest that is not the default makes room.
    const rest = load.data!.versions.filter((v) => !v.IsDefaultVersion).sort((x, y) => x.CreateDate - y.CreateDate);
    if (load.data!.versions.length >= 5) await iam('DeletePolicyVersion', { PolicyArn: arn, VersionId: rest[0].VersionId });
    await iam('CreatePolicyVersion', { PolicyArn: arn, PolicyDocument: edited, SetAsDefault: true });
    note({ type: 'success', content: t('The policy is saved as its new default version.') });
    setEdited(null);
    load.reload();
    onChange();
  };
  if (!load.data) return load.error ? <ErrorBox error={load.error} /> : <Spinner />;
  return (
    <SpaceBetween size="l">
      <Container header={<Header variant="h2" actions={own && edited === null && <Button onClick={() => setEdited(load.data!.text)}>{t('Edit')}</Button>}>{t('Policy document')}</Header>}>
        <SpaceBetween size="m">
          <PolicyEditor label={t('Policy document')} value={edited ?? load.data.text} onChange={setEdited} readOnly={edited === null} rows={18} limit={6144} />
          <ErrorBox error={a.error} title={t('The policy is not saved')} />
          {edited !== null && (
            <SpaceBetween direction="horizontal" size="xs">
              <Button variant="link" onClick={() => setEdited(null)}>
                {t('Cancel')}
              </Button>
              <Button variant="primary" loading={a.busy} disabled={!!mistake(edited)} onClick={() => a.run(save)}>
                {t('Save changes')}
              </Button>
            </SpaceBetween>
          )}
        </SpaceBetween>
      </Container>
      <List
        title={t('Versions')}
        variant="container"
        filter={false}
        load={{ ...load, data: load.data.versions, reload: load.reload }}
        trackBy={(v) => v.VersionId}
        selection={own ? 'single' : undefined}
        empty={null}
        actions={(selected) =>
          own && (
            <Button
              disabled={selected.length !== 1 || selected[0].IsDefaultVersion}
              onClick={() => a.run(() => iam('SetDefaultPolicyVersion', { PolicyArn: arn, VersionId: selected[0].VersionId })).then(() => (load.reload(), onChange()))}
            >
              {t('Set as default')}
            </Button>
          )
        }
        columns={[
          { id: 'id', header: t('Version'), cell: (v) => v.VersionId, isRowHeader: true },
          { id: 'default', header: t('Default'), cell: (v) => (v.IsDefaultVersion ? <Status value="Active" label={t('Yes')} /> : '-') },
          { id: 'created', header: t('Created'), cell: (v) => time(v.CreateDate) },
        ]}
      />
    </SpaceBetween>
  );
}

function AttachedTo({ arn }: { arn: string }) {
  const load = useLoad(async () => {
    const e = await iam('ListEntitiesForPolicy', { PolicyArn: arn });
    return (['User', 'Group', 'Role'] as const).flatMap((w) => (e[`Policy${w}s`] ?? []).map((x: Record<string, string>) => ({ name: x[`${w}Name`], type: w as string })));
  }, [arn]);
  return (
    <List<{ name: string; type: string }>
      title={t('Entities attached')}
      variant="container"
      load={load}
      trackBy={(x) => x.type + x.name}
      text={(x) => `${x.name} ${x.type}`}
      empty={<Empty title={t('Attached to nobody')} text={t('Open a user, group or role and attach it there.')} />}
      columns={[
        { id: 'name', header: t('Name'), cell: (x) => x.name, isRowHeader: true },
        { id: 'type', header: t('Type'), cell: (x) => t(x.type) },
      ]}
    />
  );
}
