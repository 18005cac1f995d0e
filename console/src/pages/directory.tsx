import { DescribeDirectoriesCommand } from '@aws-sdk/client-directory-service';
import { DescribeIpGroupsCommand, DescribeWorkspaceDirectoriesCommand, DescribeWorkspacesCommand, type WorkspacesIpGroup } from '@aws-sdk/client-workspaces';
import Alert from '@cloudscape-design/components/alert';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import Container from '@cloudscape-design/components/container';
import ContentLayout from '@cloudscape-design/components/content-layout';
import Header from '@cloudscape-design/components/header';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import Link from '@cloudscape-design/components/link';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import { ds, pages, workspaces } from '../lib/clients';
import { t } from '../lib/i18n';
import { type DirectoryUser, dsData } from '../lib/raw';
import { Confirm, Copy, Empty, ErrorBox, List, Status, useFollow, useLoad, useNote, useRegion } from '../lib/ui';
import { AccessSettings } from '../workspaces/access';
import { CreateUser, ResetPassword } from '../workspaces/create-user';

interface Row extends DirectoryUser {
  desktop?: string;
}

export default function DirectoryPage() {
  const { id = '' } = useParams();
  const region = useRegion();
  const navigate = useNavigate();
  const follow = useFollow();
  const note = useNote();
  const [creating, setCreating] = useState(false);
  const [asking, setAsking] = useState<{ what: 'disable' | 'delete' | 'reset'; u: Row } | null>(null);
  const about = useLoad(async () => {
    const [d, w] = await Promise.all([ds(region), workspaces(region)]);
    const [dir, reg, groups] = await Promise.all([
      d.send(new DescribeDirectoriesCommand({ DirectoryIds: [id] })),
      w.send(new DescribeWorkspaceDirectoriesCommand({ DirectoryIds: [id] })).catch(() => null), // one may see directories without this
      pages((NextToken) => w.send(new DescribeIpGroupsCommand({ NextToken })), (o) => o.Result, (o) => o.NextToken).catch(() => [] as WorkspacesIpGroup[]),
    ]);
    return { d: dir.DirectoryDescriptions?.[0], registration: reg?.Directories?.[0], groups };
  }, [region, id]);
  const users = useLoad<Row[]>(async () => {
    const c = await workspaces(region);
    const [all, have] = await Promise.all([dsData.listUsers(region, id), pages((NextToken) => c.send(new DescribeWorkspacesCommand({ DirectoryId: id, NextToken })), (o) => o.Workspaces, (o) => o.NextToken).catch(() => [])]);
    return all.map((u) => ({ ...u, desktop: have.find((w) => w.UserName?.toLowerCase() === u.SAMAccountName.toLowerCase())?.WorkspaceId }));
  }, [region, id]);
  const d = about.data?.d;
  const registration = about.data?.registration;
  if (about.error && !d) return <ErrorBox error={about.error} title={`${id}: ${t('not loaded')}`} />;
  return (
    <ContentLayout header={<Header variant="h1" description={id}>{d?.Name ?? id}</Header>}>
      <SpaceBetween size="l">
        <Container header={<Header variant="h2">{t('Summary')}</Header>}>
          <KeyValuePairs
            columns={3}
            items={[
              { label: t('Status'), value: <Status value={d?.Stage} /> },
              { label: t('Type'), value: d?.Type ?? '-' },
              { label: t('Registration code'), value: <Copy text={registration?.RegistrationCode} /> },
              { label: t('Second factor (RADIUS)'), value: d?.RadiusStatus ? <Status value={d.RadiusStatus} label={`${d.RadiusStatus}: ${d.RadiusSettings?.AuthenticationProtocol}, ${[...(d.RadiusSettings?.RadiusServers ?? []), ...(d.RadiusSettings?.RadiusServersIpv6 ?? [])].join(', ')}`} /> : '-' },
              { label: t("The users' portal"), value: registration ? <Copy text={`${location.origin}/portal/${id}`} /> : t('Not registered with WorkSpaces') },
            ]}
          />
        </Container>
        <List<Row>
          title={t('Users')}
          variant="container"
          load={users}
          trackBy="SAMAccountName"
          selection="single"
          placeholder={t('Find users')}
          text={(u) => [u.SAMAccountName, u.GivenName, u.Surname, u.EmailAddress, u.SID].join(' ')}
          empty={<Empty title={t('No users')} text={t('Create one; a desktop belongs to a user of the directory.')} action={<Button onClick={() => setCreating(true)}>{t('Create user')}</Button>} />}
          actions={([u]) => (
            <SpaceBetween direction="horizontal" size="xs">
              <ButtonDropdown
                disabled={!u}
                items={[
                  { id: 'reset', text: t('Reset password') },
                  { id: 'disable', text: t('Disable'), disabled: !u?.Enabled },
                  { id: 'delete', text: t('Delete') },
                ]}
                onItemClick={(e) => setAsking({ what: e.detail.id as 'reset', u })}
              >
                {t('Actions')}
              </ButtonDropdown>
              <Button variant="primary" onClick={() => setCreating(true)}>
                {t('Create user')}
              </Button>
            </SpaceBetween>
          )}
          columns={[
            { id: 'name', header: t('User name'), minWidth: 120, isRowHeader: true, cell: (u) => u.SAMAccountName },
            { id: 'full', header: t('Name'), cell: (u) => [u.GivenName, u.Surname].filter(Boolean).join(' ') || '-' },
            { id: 'enabled', header: t('Status'), minWidth: 120, cell: (u) => <Status value={u.Enabled ? 'Enabled' : 'Disabled'} /> },
            { id: 'sid', header: 'SID', minWidth: 280, cell: (u) => <Copy text={u.SID} /> },
            {
              id: 'desktop',
              header: 'WorkSpace',
              minWidth: 130,
              cell: (u) =>
                u.desktop ? (
                  <Link href={`/console/workspaces/${u.desktop}`} onFollow={follow}>
                    {u.desktop}
                  </Link>
                ) : (
                  '-'
                ),
            },
          ]}
        />
        {registration ? (
          <AccessSettings region={region} directory={registration} groups={about.data!.groups} onChange={about.reload} />
        ) : (
          about.data && (
            <Alert type="info" action={<Button onClick={() => navigate('/directories')}>{t('Directories')}</Button>}>
              {t('Register the directory with WorkSpaces to give its users desktops.')}
            </Alert>
          )
        )}
      </SpaceBetween>
      {creating && (
        <CreateUser
          region={region}
          directoryId={id}
          onClose={(name) => {
            setCreating(false);
            if (name) users.reload();
          }}
        />
      )}
      {asking?.what === 'reset' && (
        <ResetPassword
          region={region}
          directoryId={id}
          name={asking.u.SAMAccountName}
          onClose={(done) => {
            if (done) note({ type: 'success', content: `${t('Password reset')}: ${asking.u.SAMAccountName}` });
            setAsking(null);
            users.reload();
          }}
        />
      )}
      {asking && asking.what !== 'reset' && (
        <Confirm
          title={asking.what === 'delete' ? t('Delete user') : t('Disable user')}
          button={asking.what === 'delete' ? t('Delete') : t('Disable')}
          typed={asking.what === 'delete' ? asking.u.SAMAccountName : undefined}
          onConfirm={() => (asking.what === 'delete' ? dsData.deleteUser(region, id, asking.u.SAMAccountName) : dsData.disableUser(region, id, asking.u.SAMAccountName))}
          onClose={() => {
            setAsking(null);
            users.reload();
          }}
        >
          <Alert type="warning">
            {asking.what === 'delete' ? t('The user is deleted, and its SID is never given again: nobody can be let into the desktop by making the user anew.') : t('An open connection to a desktop is cut at once. Resetting the password enables the user again.')}
          </Alert>
        </Confirm>
      )}
    </ContentLayout>
  );
}
