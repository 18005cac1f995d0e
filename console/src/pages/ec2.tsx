import { CreateSnapshotCommand, DeleteSnapshotCommand, DeleteVolumeCommand, DescribeSnapshotsCommand, DescribeVolumesCommand, type Snapshot, type Volume } from '@aws-sdk/client-ec2';
import Alert from '@cloudscape-design/components/alert';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import Link from '@cloudscape-design/components/link';
import ProgressBar from '@cloudscape-design/components/progress-bar';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useState } from 'react';
import { ec2, pages } from '../lib/clients';
import { t } from '../lib/i18n';
import { Confirm, Empty, ErrorBox, List, Status, time, useAction, useFollow, useLoad, useNote, useRegion } from '../lib/ui';

export default function Ec2({ kind }: { kind: 'volumes' | 'snapshots' }) {
  return kind === 'volumes' ? <Volumes /> : <Snapshots />;
}

const nameOf = (r: { Tags?: { Key?: string; Value?: string }[] }) => r.Tags?.find((x) => x.Key === 'Name')?.Value;

function KeyLink({ arn }: { arn: string | undefined }) {
  const follow = useFollow();
  const id = arn?.split('/').pop();
  return id ? (
    <Link href={`/console/kms/keys/${id}`} onFollow={follow}>
      {id}
    </Link>
  ) : (
    <>-</>
  );
}

function Volumes() {
  const region = useRegion();
  const note = useNote();
  const follow = useFollow();
  const a = useAction();
  const [deleting, setDeleting] = useState<Volume | null>(null);
  const rows = useLoad<Volume[]>(
    async () => {
      const c = await ec2(region);
      return pages((NextToken) => c.send(new DescribeVolumesCommand({ NextToken, MaxResults: 500 })), (o) => o.Volumes, (o) => o.NextToken);
    },
    [region],
    5000,
  );
  const snapshot = (v: Volume) =>
    a.run(async () => {
      const s = await (await ec2(region)).send(new CreateSnapshotCommand({ VolumeId: v.VolumeId, Description: `${v.VolumeId}` }));
      note({ type: 'success', content: `${t('Snapshot being made')}: ${s.SnapshotId}` });
    });
  return (
    <SpaceBetween size="m">
      <ErrorBox error={a.error} />
      <List<Volume>
        title={t('Volumes')}
        description={t('The encrypted disks: of desktops, and those you make yourself.')}
        load={rows}
        trackBy="VolumeId"
        selection="single"
        placeholder={t('Find volumes')}
        text={(v) => [v.VolumeId, v.State, v.KmsKeyId, ...(v.Tags ?? []).map((x) => x.Value)].join(' ')}
        empty={<Empty title={t('No volumes')} text={t('Each WorkSpace has two; aws ec2 create-volume makes others.')} />}
        actions={([v]) => (
          <ButtonDropdown
            disabled={!v}
            loading={a.busy}
            items={[
              { id: 'snapshot', text: t('Create snapshot') },
              { id: 'delete', text: t('Delete'), disabled: v?.State !== 'available' && v?.State !== 'error', disabledReason: t('It is in use.') },
            ]}
            onItemClick={(e) => (e.detail.id === 'snapshot' ? void snapshot(v) : setDeleting(v))}
          >
            {t('Actions')}
          </ButtonDropdown>
        )}
        columns={[
          { id: 'id', header: t('Volume ID'), minWidth: 210, isRowHeader: true, sortingField: 'VolumeId', cell: (v) => v.VolumeId },
          { id: 'name', header: t('Name'), cell: (v) => nameOf(v) ?? '-' },
          { id: 'size', header: t('Size'), sortingField: 'Size', cell: (v) => `${v.Size} GiB` },
          { id: 'state', header: t('Status'), minWidth: 130, cell: (v) => <Status value={v.State} /> },
          {
            id: 'for',
            header: t('Attached to'),
            cell: (v) => {
              const attachment = v.Attachments?.[0];
              const ws = attachment?.AssociatedResource?.split('/').pop() ?? attachment?.InstanceId;
              return ws?.startsWith('ws-') ? (
                <Link href={`/console/workspaces/${ws}`} onFollow={follow}>
                  {ws}
                </Link>
              ) : (
                (ws ?? '-')
              );
            },
          },
          { id: 'encrypted', header: t('Encryption'), cell: (v) => (v.Encrypted ? t('Encrypted') : t('Not encrypted')) },
          { id: 'key', header: t('KMS key'), cell: (v) => <KeyLink arn={v.KmsKeyId} /> },
          { id: 'created', header: t('Created'), minWidth: 120, cell: (v) => time(v.CreateTime) },
        ]}
      />
      {deleting && (
        <Confirm
          title={t('Delete volume')}
          button={t('Delete')}
          typed={deleting.VolumeId!}
          onConfirm={async () => (await ec2(region)).send(new DeleteVolumeCommand({ VolumeId: deleting.VolumeId }))}
          onClose={() => {
            setDeleting(null);
            rows.reload();
          }}
        >
          <Alert type="warning">{t('Its wrapped data key is destroyed first, then the data. There is no way back.')}</Alert>
        </Confirm>
      )}
    </SpaceBetween>
  );
}

function Snapshots() {
  const region = useRegion();
  const [deleting, setDeleting] = useState<Snapshot | null>(null);
  const rows = useLoad<Snapshot[]>(
    async () => {
      const c = await ec2(region);
      return pages((NextToken) => c.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'], NextToken, MaxResults: 500 })), (o) => o.Snapshots, (o) => o.NextToken);
    },
    [region],
    5000,
  );
  return (
    <>
      <List<Snapshot>
        title={t('Snapshots')}
        description={t('Copies of volumes at a moment, encrypted like them.')}
        load={rows}
        trackBy="SnapshotId"
        selection="single"
        placeholder={t('Find snapshots')}
        text={(s) => [s.SnapshotId, s.VolumeId, s.Description, s.State, s.KmsKeyId].join(' ')}
        empty={<Empty title={t('No snapshots')} text={t('Choose a volume, then Create snapshot.')} />}
        actions={([s]) => (
          <Button disabled={!s} onClick={() => setDeleting(s)}>
            {t('Delete')}
          </Button>
        )}
        columns={[
          { id: 'id', header: t('Snapshot ID'), isRowHeader: true, sortingField: 'SnapshotId', cell: (s) => s.SnapshotId },
          { id: 'about', header: t('Description'), cell: (s) => s.Description || nameOf(s) || '-' },
          { id: 'volume', header: t('Volume ID'), cell: (s) => s.VolumeId },
          { id: 'size', header: t('Size'), cell: (s) => `${s.VolumeSize} GiB` },
          { id: 'state', header: t('Status'), minWidth: 130, cell: (s) => (s.State === 'pending' && s.Progress ? <ProgressBar value={Number.parseInt(s.Progress, 10)} ariaLabel={`${t('Progress')} ${s.SnapshotId}`} /> : <Status value={s.State} />) },
          { id: 'key', header: t('KMS key'), cell: (s) => <KeyLink arn={s.KmsKeyId} /> },
          { id: 'started', header: t('Started'), sortingField: 'StartTime', cell: (s) => time(s.StartTime) },
        ]}
      />
      {deleting && (
        <Confirm
          title={t('Delete snapshot')}
          button={t('Delete')}
          typed={deleting.SnapshotId!}
          onConfirm={async () => (await ec2(region)).send(new DeleteSnapshotCommand({ SnapshotId: deleting.SnapshotId }))}
          onClose={() => {
            setDeleting(null);
            rows.reload();
          }}
        >
          <Alert type="warning">{t('The snapshot cannot be brought back.')}</Alert>
        </Confirm>
      )}
    </>
  );
}
