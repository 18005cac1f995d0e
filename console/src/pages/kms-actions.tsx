// Enable, disable, schedule and cancel deletion: each says first what it will hit.

import type { ButtonDropdownProps } from '@cloudscape-design/components/button-dropdown';
import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import FormField from '@cloudscape-design/components/form-field';
import Input from '@cloudscape-design/components/input';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Spinner from '@cloudscape-design/components/spinner';
import Table from '@cloudscape-design/components/table';
import { useState } from 'react';
import * as client from '../lib/clients';
import { t } from '../lib/i18n';
import { type Hit, impact, type Key, keyName } from '../lib/kms';
import { Confirm, ErrorBox, Status, time, useLoad, useNote, useRegion } from '../lib/ui';

export type KeyActionName = 'enable' | 'disable' | 'delete' | 'cancel';

export function keyActions(k: Key): ButtonDropdownProps.ItemOrGroup[] {
  const s = k.meta?.KeyState ?? '';
  const pending = /^Pending(Replica)?Deletion$/.test(s);
  return [
    { id: 'enable', text: t('Enable'), disabled: s !== 'Disabled' },
    { id: 'disable', text: t('Disable'), disabled: s !== 'Enabled' },
    { id: 'delete', text: t('Schedule key deletion'), disabled: pending },
    { id: 'cancel', text: t('Cancel key deletion'), disabled: !pending },
  ];
}

const consequence = (h: Hit, deletion: boolean) => {
  if (h.kind === 'WorkSpace') return h.running ? t('Keeps running until it is stopped, rebooted or rebuilt; then it does not start.') : t('Does not start from now on.');
  if (h.kind === 'Volume') return h.running ? t('Stays readable until it is detached; then it does not attach.') : t('Does not attach from now on.');
  if (h.kind === 'Snapshot') return t('No volume can be made of it from now on.');
  return deletion ? t('Is refused from now on, and is gone with the key.') : t('Is refused until the key is enabled.');
};

/** The desktops, volumes, snapshots and grants that depend on a key, and what becomes of each. */
export function Impact({ k, deletion }: { k: Key; deletion: boolean }) {
  const region = useRegion();
  const load = useLoad(() => impact(region, k), [region, k.id]);
  if (load.error) return <ErrorBox error={load.error} />;
  if (!load.data)
    return (
      <Box>
        <Spinner /> {t('Looking for desktops and volumes that use this key')}
      </Box>
    );
  const { hits, unknown } = load.data;
  return (
    <SpaceBetween size="s">
      {unknown.length > 0 && (
        <Alert type="warning" header={t('Not everything could be looked at')}>
          {unknown.map((u) => (
            <Box key={u}>{u}</Box>
          ))}
        </Alert>
      )}
      {hits.length === 0 ? (
        unknown.length === 0 && <Box color="text-body-secondary">{t('No desktop, volume, snapshot or other grant of this region uses the key. Data encrypted with it elsewhere is not known here.')}</Box>
      ) : (
        <Table
          variant="embedded"
          items={hits}
          trackBy="id"
          wrapLines
          ariaLabels={{ tableLabel: t('What this will hit') }}
          header={<Box variant="h3">{`${t('What this will hit')} (${hits.length})`}</Box>}
          columnDefinitions={[
            { id: 'id', header: t('Resource'), cell: (h) => `${t(h.kind)} ${h.id.length > 24 ? `${h.id.slice(0, 12)}…` : h.id}`, isRowHeader: true },
            { id: 'about', header: t('About'), cell: (h) => h.about },
            { id: 'state', header: t('State'), minWidth: 140, cell: (h) => (h.kind === 'Grant' ? h.state : <Status value={h.state} />) },
            { id: 'then', header: t('What happens'), cell: (h) => consequence(h, deletion) },
          ]}
        />
      )}
    </SpaceBetween>
  );
}

export function KeyAction({ name, k, onClose }: { name: KeyActionName; k: Key; onClose: (done: boolean) => void }) {
  const region = useRegion();
  const note = useNote();
  const [days, setDays] = useState('30');
  const n = Number(days);
  const valid = Number.isInteger(n) && n >= 7 && n <= 30;
  const run = async () => {
    const [c, kms] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
    const KeyId = k.id;
    if (name === 'enable') await c.send(new kms.EnableKeyCommand({ KeyId }));
    if (name === 'disable') await c.send(new kms.DisableKeyCommand({ KeyId }));
    if (name === 'cancel') await c.send(new kms.CancelKeyDeletionCommand({ KeyId }));
    if (name === 'delete') {
      const out = await c.send(new kms.ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: n }));
      note({ type: 'success', content: `${t('The key will be deleted on')} ${time(out.DeletionDate)}.` });
      return;
    }
    note({ type: 'success', content: { enable: t('The key is enabled.'), disable: t('The key is disabled.'), cancel: t('The deletion is cancelled. The key is disabled: enable it to use it again.') }[name] });
  };
  const common = { onConfirm: run, onClose };
  if (name === 'enable')
    return (
      <Confirm title={t('Enable key')} button={t('Enable')} {...common}>
        <Box>{`${keyName(k)}: ${t('it can be used in cryptographic operations again.')}`}</Box>
      </Confirm>
    );
  if (name === 'cancel')
    return (
      <Confirm title={t('Cancel key deletion')} button={t('Cancel key deletion')} {...common}>
        <Box>{`${keyName(k)}: ${t('it stays, disabled. Enable it to use it again.')}`}</Box>
      </Confirm>
    );
  if (name === 'disable')
    return (
      <Confirm title={t('Disable key')} button={t('Disable key')} typed={keyName(k)} wide {...common}>
        <Box>{t('A disabled key refuses every cryptographic operation until it is enabled again. Nothing is lost.')}</Box>
        <Impact k={k} deletion={false} />
      </Confirm>
    );
  return (
    <Confirm title={t('Schedule key deletion')} button={t('Schedule key deletion')} typed={keyName(k)} disabled={!valid} wide {...common}>
      <Alert type="warning">{t('Once the key is deleted, everything encrypted with it is lost for good. Until then it cannot be used, and the deletion can be cancelled.')}</Alert>
      <FormField label={t('Waiting period (in days)')} description={t('From 7 to 30.')} errorText={valid ? '' : t('Enter a whole number from 7 to 30.')}>
        <Input type="number" value={days} onChange={(e) => setDays(e.detail.value)} />
      </FormField>
      {valid && <Box>{`${t('Unusable from now on; deleted for good on')} ${time(Date.now() + n * 86_400_000)}.`}</Box>}
      <Impact k={k} deletion />
    </Confirm>
  );
}
