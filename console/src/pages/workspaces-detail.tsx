import { DescribeWorkspacesCommand, DescribeWorkspacesConnectionStatusCommand, DescribeWorkspaceSnapshotsCommand } from '@aws-sdk/client-workspaces';
import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import ColumnLayout from '@cloudscape-design/components/column-layout';
import Container from '@cloudscape-design/components/container';
import ContentLayout from '@cloudscape-design/components/content-layout';
import ExpandableSection from '@cloudscape-design/components/expandable-section';
import Header from '@cloudscape-design/components/header';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import Link from '@cloudscape-design/components/link';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import { workspaces } from '../lib/clients';
import { t } from '../lib/i18n';
import { type Desktop, sealdesk } from '../lib/raw';
import { Copy, ErrorBox, Status, time, useFollow, useLoad, useRegion } from '../lib/ui';
import { type Action, ActionDialog, actionItems, encryption, keyOf } from '../workspaces/actions';
import { KeyStory } from '../workspaces/key-story';

async function describe(region: string, id: string) {
  const c = await workspaces(region);
  const [ws, machine, status, snapshots] = await Promise.all([
    c.send(new DescribeWorkspacesCommand({ WorkspaceIds: [id] })),
    sealdesk.describeDesktops(region, [id]).catch(() => [] as Desktop[]), // sealdesk:DescribeDesktops may be denied
    c.send(new DescribeWorkspacesConnectionStatusCommand({ WorkspaceIds: [id] })).catch(() => null),
    c.send(new DescribeWorkspaceSnapshotsCommand({ WorkspaceId: id })).catch(() => null),
  ]);
  return { w: ws.Workspaces?.[0] ?? null, machine: machine[0], connection: status?.WorkspacesConnectionStatus?.[0], snapshot: snapshots?.RestoreSnapshots?.map((s) => s.SnapshotTime).sort().pop() };
}

export default function WorkSpacePage() {
  const { id = '' } = useParams();
  const region = useRegion();
  const navigate = useNavigate();
  const follow = useFollow();
  const load = useLoad(() => describe(region, id), [region, id], 4000);
  const [action, setAction] = useState<Action | null>(null);
  const d = load.data;
  const w = d?.w;
  if (!d) return <ErrorBox error={load.error} title={`WorkSpace ${id}: ${t('not loaded')}`} />;
  if (!w) {
    return (
      <Alert type="info" header={t('This WorkSpace does not exist')} action={<Button onClick={() => navigate('/workspaces')}>WorkSpaces</Button>}>
        {t('It may have been deleted, or be in another region: look at the region selector.')}
      </Alert>
    );
  }
  const link = (href: string, text: string | undefined) => (
    <Link href={`/console${href}`} onFollow={follow}>
      {text}
    </Link>
  );
  return (
    <ContentLayout
      header={
        <Header
          variant="h1"
          description={`${w.UserName} · ${w.ComputerName ?? ''}`}
          actions={
            <SpaceBetween direction="horizontal" size="xs">
              <ButtonDropdown items={actionItems([w])} onItemClick={(e) => setAction(e.detail.id as Action)}>
                {t('Actions')}
              </ButtonDropdown>
            </SpaceBetween>
          }
        >
          {id}
        </Header>
      }
    >
      <SpaceBetween size="l">
        {w.ErrorMessage && (
          <Alert type="error" header={w.ErrorCode}>
            {w.ErrorMessage}
          </Alert>
        )}
        <ColumnLayout columns={2}>
          <Container header={<Header variant="h2">{t('Summary')}</Header>}>
            <KeyValuePairs
              columns={2}
              items={[
                { label: t('Status'), value: <Status value={w.State} label={d.machine?.Progress ? `${t(w.State ?? '')}: ${t(d.machine.Progress)}` : undefined} /> },
                { label: t('User name'), value: w.UserName },
                { label: t('Directory'), value: link(`/directories/${w.DirectoryId}`, w.DirectoryId) },
                { label: t('Bundle'), value: w.BundleId },
                { label: t('Running mode'), value: t(w.WorkspaceProperties?.RunningMode ?? '') },
                { label: t('Last used'), value: d.connection?.ConnectionState === 'CONNECTED' ? t('Connected now') : time(d.connection?.LastKnownUserConnectionTimestamp) },
                { label: t('Last snapshot'), value: time(d.snapshot) },
                { label: t('Machine'), value: d.machine?.MachineState ? `${d.machine.MachineState} (${d.machine.Accelerator ?? ''}, ${Math.round((d.machine.MemoryBytes ?? 0) / (1 << 20))} MiB)` : '-' },
              ]}
            />
          </Container>
          <Thumbnail region={region} id={id} running={w.State === 'AVAILABLE' || !!d.machine?.MachineState} />
        </ColumnLayout>
        <Container header={<Header variant="h2">{t('Encryption')}</Header>}>
          <KeyValuePairs
            columns={3}
            items={[
              { label: t('Volume Encryption'), value: encryption(w) },
              { label: t('Encryption key'), value: w.VolumeEncryptionKey ? link(`/kms/keys/${keyOf(w)}`, w.VolumeEncryptionKey) : '-' },
              { label: t('Encryption context'), value: d.machine?.SidDirectoryId ? <Copy text={d.machine.SidDirectoryId} /> : '-' },
              { label: t('Root volume'), value: d.machine?.RootVolumeId ?? '-' },
              { label: t('User volume'), value: d.machine?.UserVolumeId ?? '-' },
              { label: t('Grant of WorkSpaces'), value: <Box fontSize="body-s">{d.machine?.GrantId ?? '-'}</Box> },
            ]}
          />
        </Container>
        {w.VolumeEncryptionKey && <KeyStory region={region} workspaceId={id} keyArn={d.machine?.KeyId ?? w.VolumeEncryptionKey} machine={d.machine} state={w.State ?? ''} />}
      </SpaceBetween>
      {action && (
        <ActionDialog
          action={action}
          selected={[w]}
          region={region}
          onClose={(done) => {
            setAction(null);
            if (done && action === 'delete') navigate('/workspaces');
            else load.reload();
          }}
        />
      )}
    </ContentLayout>
  );
}

function Thumbnail({ region, id, running }: { region: string; id: string; running: boolean }) {
  const shot = useLoad(() => (running ? sealdesk.screenshot(region, id) : Promise.resolve('')), [region, id, running], 5000);
  return (
    <Container header={<Header variant="h2" description={t('The screen as it is now; that you looked is recorded.')}>{t('Screen')}</Header>}>
      {shot.data ? (
        <img src={`data:image/png;base64,${shot.data}`} alt={`${t('Screen of')} ${id}`} style={{ width: '100%', maxWidth: 560, borderRadius: 8, display: 'block' }} />
      ) : shot.error && running ? (
        <ExpandableSection headerText={t('The screen cannot be shown')}>
          <ErrorBox error={shot.error} />
        </ExpandableSection>
      ) : (
        <Box color="text-body-secondary" padding="l" textAlign="center">
          {t('No screen: the desktop is not running.')}
        </Box>
      )}
    </Container>
  );
}
