import { CreateDirectoryCommand, DeleteDirectoryCommand, type DirectoryDescription, DescribeDirectoriesCommand, DirectorySize } from '@aws-sdk/client-directory-service';
import { DeregisterWorkspaceDirectoryCommand, DescribeWorkspaceDirectoriesCommand, RegisterWorkspaceDirectoryCommand, type WorkspaceDirectory } from '@aws-sdk/client-workspaces';
import Alert from '@cloudscape-design/components/alert';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import FormField from '@cloudscape-design/components/form-field';
import Input from '@cloudscape-design/components/input';
import Link from '@cloudscape-design/components/link';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useState } from 'react';
import { ds, pages, workspaces } from '../lib/clients';
import { t } from '../lib/i18n';
import { Confirm, Copy, Empty, ErrorBox, List, Status, useAction, useFollow, useLoad, useNote, useRegion } from '../lib/ui';

interface Row extends DirectoryDescription {
  registration?: WorkspaceDirectory;
}

async function load(region: string): Promise<Row[]> {
  const [d, w] = await Promise.all([ds(region), workspaces(region)]);
  const [all, registered] = await Promise.all([
    pages((NextToken) => d.send(new DescribeDirectoriesCommand({ NextToken })), (o) => o.DirectoryDescriptions, (o) => o.NextToken),
    pages((NextToken) => w.send(new DescribeWorkspaceDirectoriesCommand({ NextToken })), (o) => o.Directories, (o) => o.NextToken).catch(() => []), // one may see directories without this
  ]);
  return all.map((x) => ({ ...x, registration: registered.find((r) => r.DirectoryId === x.DirectoryId) }));
}

export default function Directories() {
  const region = useRegion();
  const follow = useFollow();
  const note = useNote();
  const a = useAction();
  const rows = useLoad<Row[]>(() => load(region), [region], 4000);
  const [creating, setCreating] = useState(false);
  const [asking, setAsking] = useState<{ what: 'deregister' | 'delete'; d: Row } | null>(null);
  const register = (d: Row) =>
    a.run(async () => {
      await (await workspaces(region)).send(new RegisterWorkspaceDirectoryCommand({ DirectoryId: d.DirectoryId, EnableSelfService: true }));
      note({ type: 'success', content: `${t('Registered with WorkSpaces')}: ${d.Name}` });
      rows.reload();
    });
  const create = (
    <Button variant="primary" onClick={() => setCreating(true)}>
      {t('Create directory')}
    </Button>
  );
  return (
    <SpaceBetween size="m">
      <ErrorBox error={a.error} />
      <List<Row>
        title={t('Directories')}
        description={t('Where the users of desktops are; a directory is registered with WorkSpaces before they get any.')}
        load={rows}
        trackBy="DirectoryId"
        selection="single"
        placeholder={t('Find directories')}
        text={(d) => [d.DirectoryId, d.Name, d.Alias, d.Type].join(' ')}
        empty={<Empty title={t('No directories')} text={t('Create one, register it with WorkSpaces, and add users.')} action={create} />}
        actions={([d]) => (
          <SpaceBetween direction="horizontal" size="xs">
            <ButtonDropdown
              disabled={!d}
              loading={a.busy}
              items={[
                { id: 'register', text: t('Register with WorkSpaces'), disabled: !!d?.registration || d?.Stage !== 'Active' },
                { id: 'deregister', text: t('Deregister'), disabled: !d?.registration },
                { id: 'delete', text: t('Delete'), disabled: !!d?.registration, disabledReason: t('Deregister it from WorkSpaces first.') },
              ]}
              onItemClick={(e) => (e.detail.id === 'register' ? void register(d) : setAsking({ what: e.detail.id as 'delete', d }))}
            >
              {t('Actions')}
            </ButtonDropdown>
            {create}
          </SpaceBetween>
        )}
        columns={[
          {
            id: 'id',
            header: t('Directory ID'),
            isRowHeader: true,
            cell: (d) => (
              <Link href={`/console/directories/${d.DirectoryId}`} onFollow={follow}>
                {d.DirectoryId}
              </Link>
            ),
          },
          { id: 'name', header: t('Directory name'), cell: (d) => d.Name },
          { id: 'type', header: t('Type'), cell: (d) => d.Type },
          { id: 'stage', header: t('Status'), minWidth: 120, cell: (d) => <Status value={d.Stage} /> },
          { id: 'registered', header: t('Registered with WorkSpaces'), cell: (d) => (d.registration ? <Status value={d.registration.State} /> : t('No')) },
          { id: 'code', header: t('Registration code'), cell: (d) => <Copy text={d.registration?.RegistrationCode} /> },
        ]}
      />
      {creating && (
        <CreateDirectory
          region={region}
          onClose={() => {
            setCreating(false);
            rows.reload();
          }}
        />
      )}
      {asking && (
        <Confirm
          title={asking.what === 'delete' ? t('Delete directory') : t('Deregister directory')}
          button={asking.what === 'delete' ? t('Delete') : t('Deregister')}
          typed={asking.d.Name!}
          onConfirm={async () =>
            asking.what === 'delete'
              ? (await ds(region)).send(new DeleteDirectoryCommand({ DirectoryId: asking.d.DirectoryId }))
              : (await workspaces(region)).send(new DeregisterWorkspaceDirectoryCommand({ DirectoryId: asking.d.DirectoryId }))
          }
          onClose={() => {
            setAsking(null);
            rows.reload();
          }}
        >
          <Alert type="warning">
            {asking.what === 'delete' ? t('All its users and groups are deleted. There is no way back.') : t('Its users can no longer sign in to the portal. WorkSpaces of the directory must be deleted first.')}
          </Alert>
        </Confirm>
      )}
    </SpaceBetween>
  );
}

function CreateDirectory({ region, onClose }: { region: string; onClose: () => void }) {
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const run = async () => (await ds(region)).send(new CreateDirectoryCommand({ Name: name.trim(), Password: password, Size: DirectorySize.SMALL }));
  return (
    <Confirm title={t('Create directory')} button={t('Create directory')} disabled={!name.trim() || !password} onConfirm={run} onClose={onClose}>
      <FormField label={t('Directory DNS name')} description={t('A full name, such as corp.example.com.')}>
        <Input value={name} onChange={(e) => setName(e.detail.value)} placeholder="corp.example.com" autoComplete={false} />
      </FormField>
      <FormField label={t('Administrator password')} description={t('At least 8 characters with three of: lower case, upper case, digits, others.')}>
        <Input type="password" value={password} onChange={(e) => setPassword(e.detail.value)} autoComplete="new-password" />
      </FormField>
    </Confirm>
  );
}
