import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import BreadcrumbGroup from '@cloudscape-design/components/breadcrumb-group';
import Container from '@cloudscape-design/components/container';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import Link from '@cloudscape-design/components/link';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Spinner from '@cloudscape-design/components/spinner';
import Tabs, { type TabsProps } from '@cloudscape-design/components/tabs';
import { useState } from 'react';
import { useParams, useSearchParams } from 'react-router';
import * as client from '../lib/clients';
import { t } from '../lib/i18n';
import { describeKey, isManaged, type Key, keyName } from '../lib/kms';
import { Confirm, Copy, ErrorBox, time, useFollow, useLoad, useNote, useRegion } from '../lib/ui';
import { KeyAction, type KeyActionName, keyActions } from './kms-actions';
import { KeyState, typeOf, usageOf } from './kms-list';
import { KeyPolicyTab } from './kms-policy';
import { AliasesTab, GrantsTab, PublicKeyTab, RegionalityTab, RotationTab, TagsTab } from './kms-tabs';

export default function KeyPage() {
  const { id = '' } = useParams();
  const region = useRegion();
  const follow = useFollow();
  const load = useLoad(() => describeKey(region, id), [region, id]);
  const [search, setSearch] = useSearchParams();
  const [doing, setDoing] = useState<KeyActionName | 'describe' | null>(null);
  const k = load.data;
  if (!k)
    return (
      <SpaceBetween size="m">
        <Header variant="h1">{t('Key')}</Header>
        {load.error ? <ErrorBox error={load.error} title={`${id}: ${t('not loaded')}`} /> : <Spinner size="large" />}
      </SpaceBetween>
    );
  const managed = isManaged(k);
  const m = k.meta!;
  const symmetric = m.KeySpec === 'SYMMETRIC_DEFAULT';
  const tabs: TabsProps.Tab[] = [
    { id: 'policy', label: t('Key policy'), content: <KeyPolicyTab k={k} readOnly={managed} /> },
    { id: 'crypto', label: t('Cryptographic configuration'), content: <Cryptographic k={k} /> },
    { id: 'tags', label: t('Tags'), content: <TagsTab k={k} readOnly={managed} /> },
    ...(symmetric ? [{ id: 'rotation', label: t('Key rotation'), content: <RotationTab k={k} readOnly={managed} /> }] : []),
    ...(!symmetric && !m.KeySpec?.startsWith('HMAC') ? [{ id: 'public', label: t('Public key'), content: <PublicKeyTab k={k} /> }] : []),
    { id: 'aliases', label: t('Aliases'), content: <AliasesTab k={k} readOnly={managed} onChange={load.reload} /> },
    { id: 'grants', label: t('Grants'), content: <GrantsTab k={k} /> },
    ...(m.MultiRegion ? [{ id: 'regions', label: t('Regionality'), content: <RegionalityTab k={k} onChange={load.reload} /> }] : []),
  ];
  const tab = search.get('tab') ?? 'policy';
  return (
    <SpaceBetween size="l">
      <BreadcrumbGroup
        ariaLabel={t('Breadcrumbs')}
        onFollow={follow}
        items={[
          { text: 'KMS', href: '/console/kms/customer' },
          managed ? { text: t('AWS managed keys'), href: '/console/kms/managed' } : { text: t('Customer managed keys'), href: '/console/kms/customer' },
          { text: `${t('Key ID')}: ${k.id}`, href: '' },
        ]}
      />
      <Header
        variant="h1"
        actions={
          managed ? undefined : (
            <SpaceBetween direction="horizontal" size="xs">
              <Button onClick={() => setDoing('describe')}>{t('Edit description')}</Button>
              <ButtonDropdown items={keyActions(k)} onItemClick={(e) => setDoing(e.detail.id as KeyActionName)}>
                {t('Key actions')}
              </ButtonDropdown>
            </SpaceBetween>
          )
        }
      >
        {keyName(k)}
      </Header>
      <ErrorBox error={load.error} />
      <Container header={<Header variant="h2">{t('General configuration')}</Header>}>
        <KeyValuePairs
          columns={3}
          items={[
            { label: t('Alias'), value: k.aliases[0]?.replace(/^alias\//, '') ?? '-' },
            { label: t('Status'), value: <KeyState k={k} /> },
            { label: t('Creation date'), value: time(m.CreationDate) },
            { label: 'ARN', value: <Copy text={k.arn} /> },
            { label: t('Description'), value: m.Description || '-' },
            { label: t('Regionality'), value: m.MultiRegion ? `${t('Multi-Region')} (${t(m.MultiRegionConfiguration?.MultiRegionKeyType === 'REPLICA' ? 'replica' : 'primary')})` : t('Single Region') },
            ...(m.DeletionDate ? [{ label: t('Deletion date'), value: time(m.DeletionDate) }] : []),
          ]}
        />
      </Container>
      <Tabs ariaLabel={t('About the key')} tabs={tabs} activeTabId={tabs.some((x) => x.id === tab) ? tab : 'policy'} onChange={(e) => setSearch({ tab: e.detail.activeTabId }, { replace: true })} />
      {doing === 'describe' && (
        <Description
          k={k}
          onClose={(done) => {
            setDoing(null);
            if (done) load.reload();
          }}
        />
      )}
      {doing && doing !== 'describe' && (
        <KeyAction
          name={doing}
          k={k}
          onClose={(done) => {
            setDoing(null);
            if (done) load.reload();
          }}
        />
      )}
    </SpaceBetween>
  );
}

function Cryptographic({ k }: { k: Key }) {
  const follow = useFollow();
  const m = k.meta!;
  const algorithms = m.EncryptionAlgorithms ?? m.SigningAlgorithms ?? m.MacAlgorithms ?? m.KeyAgreementAlgorithms ?? [];
  return (
    <Container header={<Header variant="h2">{t('Cryptographic configuration')}</Header>}>
      <KeyValuePairs
        columns={3}
        items={[
          { label: t('Key type'), value: typeOf(k) },
          { label: t('Origin'), value: m.Origin ?? '-' },
          ...(m.CustomKeyStoreId
            ? [
                {
                  label: t('Custom key store'),
                  value: (
                    <Link href={`/console/kms/stores/${m.CustomKeyStoreId}`} onFollow={follow}>
                      {m.CustomKeyStoreId}
                    </Link>
                  ),
                },
              ]
            : []),
          ...(m.XksKeyConfiguration ? [{ label: t('External key ID'), value: m.XksKeyConfiguration.Id }] : []),
          { label: t('Key spec'), value: m.KeySpec ?? '-' },
          { label: t('Key usage'), value: usageOf(m.KeyUsage) },
          { label: t('Algorithms'), value: algorithms.join(', ') || '-' },
          { label: t('Can encrypt desktops'), value: m.KeySpec === 'SYMMETRIC_DEFAULT' ? t('Yes') : t('No: WorkSpaces takes symmetric encryption keys only') },
        ]}
      />
    </Container>
  );
}

function Description({ k, onClose }: { k: Key; onClose: (done: boolean) => void }) {
  const region = useRegion();
  const note = useNote();
  const [text, setText] = useState(k.meta?.Description ?? '');
  const save = async () => {
    const [c, { UpdateKeyDescriptionCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
    await c.send(new UpdateKeyDescriptionCommand({ KeyId: k.id, Description: text }));
    note({ type: 'success', content: t('The description is saved.') });
  };
  return (
    <Confirm title={t('Edit description')} button={t('Save')} onConfirm={save} onClose={onClose}>
      <FormField label={t('Description')}>
        <Input value={text} onChange={(e) => setText(e.detail.value)} />
      </FormField>
      <Box variant="small">{t('Do not write secrets here: descriptions are recorded in CloudTrail.')}</Box>
    </Confirm>
  );
}
