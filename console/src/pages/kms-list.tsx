import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import Link from '@cloudscape-design/components/link';
import { useState } from 'react';
import { useNavigate } from 'react-router';
import { t } from '../lib/i18n';
import { isManaged, type Key, keyName, listKeys } from '../lib/kms';
import { Empty, List, Status, useFollow, useLoad, useRegion } from '../lib/ui';
import { KeyAction, type KeyActionName, keyActions } from './kms-actions';

export const typeOf = (k: Key) => (!k.meta ? '-' : k.meta.KeySpec?.startsWith('SYMMETRIC') ? t('Symmetric') : k.meta.KeySpec?.startsWith('HMAC') ? 'HMAC' : t('Asymmetric'));

const USAGE: Record<string, string> = { ENCRYPT_DECRYPT: 'Encrypt and decrypt', SIGN_VERIFY: 'Sign and verify', GENERATE_VERIFY_MAC: 'Generate and verify MAC', KEY_AGREEMENT: 'Key agreement', ENCAPSULATE_DECAPSULATE: 'Encapsulate and decapsulate' };
export const usageOf = (usage: string | undefined) => (usage ? t(USAGE[usage] ?? usage) : '-');

const STATE: Record<string, string> = { PendingDeletion: 'Pending deletion', PendingImport: 'Pending import', PendingReplicaDeletion: 'Pending replica deletion' };
export const KeyState = ({ k }: { k: Key }) => (k.meta ? <Status value={k.meta.KeyState} label={t(STATE[k.meta.KeyState!] ?? k.meta.KeyState!)} /> : <>-</>);

export default function Keys({ managed }: { managed?: boolean }) {
  const region = useRegion();
  const navigate = useNavigate();
  const follow = useFollow();
  const load = useLoad(async () => (await listKeys(region)).filter((k) => isManaged(k) === !!managed), [region, managed]);
  const [doing, setDoing] = useState<{ name: KeyActionName; key: Key } | null>(null);
  const href = (k: Key) => `/console/kms/keys/${k.id}`;
  const title = managed ? t('AWS managed keys') : t('Customer managed keys');
  return (
    <>
      <List<Key>
        title={title}
        description={managed ? t('Keys that a service made in your account on first use. You can look at them; the service manages them.') : undefined}
        load={load}
        trackBy="id"
        placeholder={t('Find keys by alias or key ID')}
        text={(k) => [k.id, ...k.aliases, k.meta?.Description, k.meta?.KeySpec, k.meta?.KeyState].join(' ')}
        selection={managed ? undefined : 'single'}
        empty={
          managed ? (
            <Empty title={t('No AWS managed keys')} text={t('They appear when a service first needs one, for example with the first encrypted WorkSpace that names no key.')} />
          ) : (
            <Empty title={t('No customer managed keys')} text={t('Create a key, say who administers and who uses it, then choose it when you launch a WorkSpace.')} action={<Button onClick={() => navigate('/kms/create')}>{t('Create key')}</Button>} />
          )
        }
        actions={
          managed
            ? undefined
            : (selected) => (
                <>
                  <ButtonDropdown
                    disabled={selected.length !== 1}
                    items={selected.length === 1 ? keyActions(selected[0]) : []}
                    onItemClick={(e) => setDoing({ name: e.detail.id as KeyActionName, key: selected[0] })}
                  >
                    {t('Key actions')}
                  </ButtonDropdown>
                  <Button variant="primary" onClick={() => navigate('/kms/create')}>
                    {t('Create key')}
                  </Button>
                </>
              )
        }
        columns={[
          {
            id: 'alias',
            header: t('Aliases'),
            cell: (k) =>
              k.aliases.length ? (
                <>
                  <Link href={href(k)} onFollow={follow}>
                    {keyName(k)}
                  </Link>
                  {k.aliases.length > 1 && <Box variant="small"> +{k.aliases.length - 1}</Box>}
                </>
              ) : (
                '-'
              ),
            sortingComparator: (a, b) => keyName(a).localeCompare(keyName(b)),
          },
          {
            id: 'id',
            header: t('Key ID'),
            cell: (k) => (
              <Link href={href(k)} onFollow={follow}>
                {k.id}
              </Link>
            ),
            sortingField: 'id',
            isRowHeader: true,
          },
          { id: 'state', header: t('Status'), minWidth: 140, cell: (k) => <KeyState k={k} />, sortingComparator: (a, b) => (a.meta?.KeyState ?? '').localeCompare(b.meta?.KeyState ?? '') },
          ...(managed
            ? []
            : [
                { id: 'type', header: t('Key type'), cell: typeOf },
                { id: 'spec', header: t('Key spec'), cell: (k: Key) => k.meta?.KeySpec ?? '-', sortingComparator: (a: Key, b: Key) => (a.meta?.KeySpec ?? '').localeCompare(b.meta?.KeySpec ?? '') },
                { id: 'usage', header: t('Key usage'), cell: (k: Key) => usageOf(k.meta?.KeyUsage) },
              ]),
        ]}
      />
      {doing && (
        <KeyAction
          name={doing.name}
          k={doing.key}
          onClose={(done) => {
            setDoing(null);
            if (done) load.reload();
          }}
        />
      )}
    </>
  );
}
