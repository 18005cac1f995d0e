import { DescribeWorkspacesCommand, DescribeWorkspacesConnectionStatusCommand, type Workspace } from '@aws-sdk/client-workspaces';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import Link from '@cloudscape-design/components/link';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useState } from 'react';
import { useNavigate } from 'react-router';
import { pages, workspaces } from '../lib/clients';
import { t } from '../lib/i18n';
import { Empty, List, Status, time, useFollow, useLoad, useRegion } from '../lib/ui';
import { type Action, ActionDialog, actionItems, encryption, keyOf } from '../workspaces/actions';

interface Row extends Workspace {
  connection?: string;
  lastUsed?: Date;
}

async function load(region: string): Promise<Row[]> {
  const c = await workspaces(region);
  const [all, status] = await Promise.all([
    pages((NextToken) => c.send(new DescribeWorkspacesCommand({ NextToken })), (o) => o.Workspaces, (o) => o.NextToken),
    pages((NextToken) => c.send(new DescribeWorkspacesConnectionStatusCommand({ NextToken })), (o) => o.WorkspacesConnectionStatus, (o) => o.NextToken).catch(() => []), // one may see WorkSpaces without this
  ]);
  const by = new Map(status.map((s) => [s.WorkspaceId, s]));
  return all.map((w) => ({ ...w, connection: by.get(w.WorkspaceId)?.ConnectionState, lastUsed: by.get(w.WorkspaceId)?.LastKnownUserConnectionTimestamp }));
}

export default function WorkSpacesList() {
  const region = useRegion();
  const navigate = useNavigate();
  const follow = useFollow();
  const rows = useLoad<Row[]>(() => load(region), [region], 4000);
  const [action, setAction] = useState<{ action: Action; selected: Row[] } | null>(null);
  const launch = (
    <Button variant="primary" onClick={() => navigate('/workspaces/launch')}>
      {t('Launch WorkSpaces')}
    </Button>
  );
  return (
    <>
      <List<Row>
        title="WorkSpaces"
        description={t('One encrypted desktop for each user.')}
        load={rows}
        trackBy="WorkspaceId"
        selection="multi"
        placeholder={t('Find WorkSpaces')}
        text={(w) => [w.WorkspaceId, w.UserName, w.ComputerName, w.DirectoryId, w.State, w.VolumeEncryptionKey].join(' ')}
        empty={<Empty title={t('No WorkSpaces')} text={t('Launch one for a user of a directory; its volumes can be encrypted under a key of yours.')} action={launch} />}
        actions={(selected) => (
          <SpaceBetween direction="horizontal" size="xs">
            <ButtonDropdown items={actionItems(selected)} disabled={selected.length === 0} onItemClick={(e) => setAction({ action: e.detail.id as Action, selected })}>
              {t('Actions')}
            </ButtonDropdown>
            {launch}
          </SpaceBetween>
        )}
        columns={[
          {
            id: 'id',
            header: t('WorkSpace ID'),
            minWidth: 140,
            isRowHeader: true,
            sortingField: 'WorkspaceId',
            cell: (w) => (
              <Link href={`/console/workspaces/${w.WorkspaceId}`} onFollow={follow}>
                {w.WorkspaceId}
              </Link>
            ),
          },
          { id: 'user', header: t('User name'), minWidth: 120, sortingField: 'UserName', cell: (w) => w.UserName },
          { id: 'state', header: t('Status'), minWidth: 150, sortingField: 'State', cell: (w) => <Status value={w.State} /> },
          {
            id: 'directory',
            header: t('Directory'),
            minWidth: 130,
            cell: (w) => (
              <Link href={`/console/directories/${w.DirectoryId}`} onFollow={follow}>
                {w.DirectoryId}
              </Link>
            ),
          },
          { id: 'encryption', header: t('Volume Encryption'), cell: encryption },
          {
            id: 'key',
            header: t('Encryption key'),
            minWidth: 170,
            cell: (w) =>
              w.VolumeEncryptionKey ? (
                <Link href={`/console/kms/keys/${keyOf(w)}`} onFollow={follow}>
                  {keyOf(w)}
                </Link>
              ) : (
                '-'
              ),
          },
          { id: 'mode', header: t('Running mode'), cell: (w) => t(w.WorkspaceProperties?.RunningMode ?? '') },
          { id: 'used', header: t('Last used'), minWidth: 130, cell: (w) => (w.connection === 'CONNECTED' ? t('Connected now') : time(w.lastUsed)) },
        ]}
      />
      {action && (
        <ActionDialog
          {...action}
          region={region}
          onClose={() => {
            setAction(null);
            rows.reload();
          }}
        />
      )}
    </>
  );
}
