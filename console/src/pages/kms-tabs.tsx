// The key's other tabs: tags, rotation, aliases, grants, public key, regions.

import type { GrantListEntry, RotationsListEntry } from '@aws-sdk/client-kms';
import AttributeEditor from '@cloudscape-design/components/attribute-editor';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Container from '@cloudscape-design/components/container';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import Select from '@cloudscape-design/components/select';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Toggle from '@cloudscape-design/components/toggle';
import { useState } from 'react';
import * as client from '../lib/clients';
import { pages } from '../lib/clients';
import { t } from '../lib/i18n';
import { type Key, listAliases, listGrants } from '../lib/kms';
import { REGIONS } from '../lib/regions';
import { Confirm, Copy, Empty, ErrorBox, List, Status, time, useAction, useLoad, useNote, useRegion } from '../lib/ui';

const kms = (region: string) => Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);

export type Tag = { key: string; value: string };

export function TagRows({ tags, onChange }: { tags: Tag[]; onChange: (tags: Tag[]) => void }) {
  const set = (i: number, part: Partial<Tag>) => onChange(tags.map((x, n) => (n === i ? { ...x, ...part } : x)));
  return (
    <AttributeEditor<Tag>
      items={tags}
      addButtonText={t('Add tag')}
      removeButtonText={t('Remove')}
      removeButtonAriaLabel={(x) => `${t('Remove')} ${x.key}`}
      empty={t('No tags')}
      isItemRemovable={() => true}
      onAddButtonClick={() => onChange([...tags, { key: '', value: '' }])}
      onRemoveButtonClick={(e) => onChange(tags.filter((_, i) => i !== e.detail.itemIndex))}
      disableAddButton={tags.length >= 50}
      definition={[
        { label: t('Tag key'), control: (x, i) => <Input value={x.key} ariaLabel={`${t('Tag key')} ${i + 1}`} onChange={(e) => set(i, { key: e.detail.value })} /> },
        { label: t('Tag value'), control: (x, i) => <Input value={x.value} ariaLabel={`${t('Tag value')} ${i + 1}`} onChange={(e) => set(i, { value: e.detail.value })} /> },
      ]}
    />
  );
}

export function TagsTab({ k, readOnly }: { k: Key; readOnly: boolean }) {
  const region = useRegion();
  const note = useNote();
  const load = useLoad(async () => {
    const [c, { ListResourceTagsCommand }] = await kms(region);
    const tags = await pages((Marker) => c.send(new ListResourceTagsCommand({ KeyId: k.id, Marker })), (p) => p.Tags, (p) => p.NextMarker);
    return tags.map((x) => ({ key: x.TagKey!, value: x.TagValue! }));
  }, [region, k.id]);
  const [edited, setEdited] = useState<Tag[] | null>(null);
  const save = async () => {
    const [c, { TagResourceCommand, UntagResourceCommand }] = await kms(region);
    const tags = edited!.filter((x) => x.key !== '');
    const gone = load.data!.filter((x) => !tags.some((y) => y.key === x.key)).map((x) => x.key);
    if (tags.length) await c.send(new TagResourceCommand({ KeyId: k.id, Tags: tags.map((x) => ({ TagKey: x.key, TagValue: x.value })) }));
    if (gone.length) await c.send(new UntagResourceCommand({ KeyId: k.id, TagKeys: gone }));
    note({ type: 'success', content: t('The tags are saved.') });
  };
  return (
    <>
      <List<Tag>
        title={t('Tags')}
        variant="container"
        load={load}
        trackBy="key"
        text={(x) => `${x.key} ${x.value}`}
        empty={<Empty title={t('No tags')} text={t('Tags tell keys apart by cost centre, owner or project, and policies can refer to them.')} />}
        actions={() => !readOnly && <Button onClick={() => setEdited(load.data ?? [])}>{t('Edit tags')}</Button>}
        columns={[
          { id: 'key', header: t('Tag key'), cell: (x) => x.key, sortingField: 'key', isRowHeader: true },
          { id: 'value', header: t('Tag value'), cell: (x) => x.value || '-', sortingField: 'value' },
        ]}
      />
      {edited && (
        <Confirm
          title={t('Edit tags')}
          button={t('Save')}
          wide
          onConfirm={save}
          onClose={(done) => {
            setEdited(null);
            if (done) load.reload();
          }}
        >
          <TagRows tags={edited} onChange={setEdited} />
        </Confirm>
      )}
    </>
  );
}

export function RotationTab({ k, readOnly }: { k: Key; readOnly: boolean }) {
  const region = useRegion();
  const note = useNote();
  const load = useLoad(async () => {
    const [c, { GetKeyRotationStatusCommand, ListKeyRotationsCommand }] = await kms(region);
    const [status, rotations] = await Promise.all([
      c.send(new GetKeyRotationStatusCommand({ KeyId: k.id })),
      pages((Marker) => c.send(new ListKeyRotationsCommand({ KeyId: k.id, Marker })), (p) => p.Rotations, (p) => p.NextMarker).catch((): RotationsListEntry[] => []),
    ]);
    return { status, rotations };
  }, [region, k.id]);
  const [edit, setEdit] = useState<{ on: boolean; days: string } | null>(null);
  const [now, setNow] = useState(false);
  if (load.error) return <ErrorBox error={load.error} title={`${t('Key rotation')}: ${t('not loaded')}`} />;
  const s = load.data?.status;
  const n = Number(edit?.days);
  const valid = !edit?.on || (Number.isInteger(n) && n >= 90 && n <= 2560);
  const save = async () => {
    const [c, { EnableKeyRotationCommand, DisableKeyRotationCommand }] = await kms(region);
    await (edit!.on ? c.send(new EnableKeyRotationCommand({ KeyId: k.id, RotationPeriodInDays: n })) : c.send(new DisableKeyRotationCommand({ KeyId: k.id })));
    note({ type: 'success', content: edit!.on ? t('Automatic rotation is on.') : t('Automatic rotation is off.') });
  };
  const rotate = async () => {
    const [c, { RotateKeyOnDemandCommand }] = await kms(region);
    await c.send(new RotateKeyOnDemandCommand({ KeyId: k.id }));
    note({ type: 'success', content: t('The key is being rotated. What was encrypted before stays readable.') });
  };
  const usable = k.meta?.KeyState === 'Enabled' && !readOnly;
  return (
    <SpaceBetween size="l">
      <Container
        header={
          <Header
            variant="h2"
            actions={
              readOnly ? undefined : (
                <SpaceBetween direction="horizontal" size="xs">
                  <Button disabled={!usable || !s} onClick={() => setEdit({ on: !!s!.KeyRotationEnabled, days: String(s!.RotationPeriodInDays ?? 365) })}>
                    {t('Edit')}
                  </Button>
                  <Button disabled={!usable} onClick={() => setNow(true)}>
                    {t('Rotate now')}
                  </Button>
                </SpaceBetween>
              )
            }
          >
            {t('Automatic key rotation')}
          </Header>
        }
      >
        <KeyValuePairs
          columns={3}
          items={[
            { label: t('Status'), value: s ? <Status value={s.KeyRotationEnabled ? 'Enabled' : 'Disabled'} /> : '-' },
            { label: t('Rotation period (in days)'), value: s?.RotationPeriodInDays ?? '-' },
            { label: t('Next rotation'), value: time(s?.NextRotationDate) },
          ]}
        />
      </Container>
      <List<RotationsListEntry>
        title={t('Completed rotations')}
        variant="container"
        filter={false}
        load={{ ...load, data: load.data?.rotations, reload: load.reload }}
        trackBy={(r) => String(r.RotationDate) + r.KeyMaterialId}
        empty={<Empty title={t('The key has not been rotated')} />}
        columns={[
          { id: 'date', header: t('Date'), cell: (r) => time(r.RotationDate), isRowHeader: true },
          { id: 'type', header: t('Rotation type'), cell: (r) => t(r.RotationType === 'ON_DEMAND' ? 'On demand' : 'Automatic') },
        ]}
      />
      {edit && (
        <Confirm
          title={t('Automatic key rotation')}
          button={t('Save')}
          disabled={!valid}
          onConfirm={save}
          onClose={(done) => {
            setEdit(null);
            if (done) load.reload();
          }}
        >
          <Toggle checked={edit.on} onChange={(e) => setEdit({ ...edit, on: e.detail.checked })}>
            {t('Rotate the key automatically')}
          </Toggle>
          {edit.on && (
            <FormField label={t('Rotation period (in days)')} description={t('From 90 to 2560.')} errorText={valid ? '' : t('Enter a whole number from 90 to 2560.')}>
              <Input type="number" value={edit.days} onChange={(e) => setEdit({ ...edit, days: e.detail.value })} />
            </FormField>
          )}
        </Confirm>
      )}
      {now && (
        <Confirm
          title={t('Rotate now')}
          button={t('Rotate now')}
          onConfirm={rotate}
          onClose={(done) => {
            setNow(false);
            if (done) load.reload();
          }}
        >
          <Box>{t('New key material encrypts from now on; the old stays to decrypt with. A key can be rotated on demand 25 times.')}</Box>
        </Confirm>
      )}
    </SpaceBetween>
  );
}

export function AliasesTab({ k, readOnly, onChange }: { k: Key; readOnly: boolean; onChange: () => void }) {
  const region = useRegion();
  const note = useNote();
  const load = useLoad(() => listAliases(region, k.id), [region, k.id]);
  const [fresh, setFresh] = useState<string | null>(null);
  const [gone, setGone] = useState<string | null>(null);
  const closed = (done: boolean) => {
    setFresh(null);
    setGone(null);
    if (done) {
      load.reload();
      onChange();
    }
  };
  const name = fresh ?? '';
  const wrong = name === '' ? '' : !/^[A-Za-z0-9/_-]+$/.test(name) ? t('Letters, digits, / _ and - only.') : name.startsWith('aws/') ? t('Names that begin with aws/ are for AWS managed keys.') : '';
  return (
    <>
      <List
        title={t('Aliases')}
        variant="container"
        load={load}
        trackBy={(x) => x.AliasName!}
        text={(x) => x.AliasName!}
        selection={readOnly ? undefined : 'single'}
        empty={<Empty title={t('No aliases')} text={t('An alias is a name for the key that people can remember.')} />}
        actions={(selected) =>
          !readOnly && (
            <>
              <Button disabled={selected.length !== 1} onClick={() => setGone(selected[0].AliasName!)}>
                {t('Delete')}
              </Button>
              <Button onClick={() => setFresh('')}>{t('Create alias')}</Button>
            </>
          )
        }
        columns={[
          { id: 'name', header: t('Alias name'), cell: (x) => x.AliasName!.replace(/^alias\//, ''), isRowHeader: true },
          { id: 'arn', header: t('Alias ARN'), cell: (x) => <Copy text={x.AliasArn} /> },
        ]}
      />
      {fresh !== null && (
        <Confirm
          title={t('Create alias')}
          button={t('Create alias')}
          disabled={name === '' || !!wrong}
          onClose={closed}
          onConfirm={async () => {
            const [c, { CreateAliasCommand }] = await kms(region);
            await c.send(new CreateAliasCommand({ AliasName: `alias/${name}`, TargetKeyId: k.id }));
            note({ type: 'success', content: t('The alias is created.') });
          }}
        >
          <FormField label={t('Alias name')} errorText={wrong}>
            <Input value={name} onChange={(e) => setFresh(e.detail.value)} />
          </FormField>
        </Confirm>
      )}
      {gone && (
        <Confirm
          title={t('Delete alias')}
          button={t('Delete')}
          typed={gone.replace(/^alias\//, '')}
          onClose={closed}
          onConfirm={async () => {
            const [c, { DeleteAliasCommand }] = await kms(region);
            await c.send(new DeleteAliasCommand({ AliasName: gone }));
            note({ type: 'success', content: t('The alias is deleted.') });
          }}
        >
          <Box>{t('The key stays. What refers to it by this name no longer finds it.')}</Box>
        </Confirm>
      )}
    </>
  );
}

type Grant = GrantListEntry & { GranteeServicePrincipal?: string; RetiringServicePrincipal?: string };

const context = (g: Grant) => {
  const c = g.Constraints;
  const pairs = c?.EncryptionContextEquals ?? c?.EncryptionContextSubset;
  const lines = Object.entries(pairs ?? {}).map(([key, v]) => `${key} = ${v}`);
  const arn = (c as { SourceArn?: string } | undefined)?.SourceArn;
  return [...(pairs ? [c?.EncryptionContextEquals ? t('Encryption context is exactly:') : t('Encryption context has:')] : []), ...lines, ...(arn ? [`${t('On behalf of')} ${arn}`] : [])];
};

export function GrantsTab({ k }: { k: Key }) {
  const region = useRegion();
  const note = useNote();
  const load = useLoad(() => listGrants(region, k.id) as Promise<Grant[]>, [region, k.id]);
  const [ask, setAsk] = useState<{ grant: Grant; retire: boolean } | null>(null);
  return (
    <>
      <List<Grant>
        title={t('Grants')}
        description={t('Each lets one principal use the key for some operations, within its constraints. WorkSpaces and EBS hold one for every desktop and volume, and retire them when it is deleted.')}
        variant="container"
        load={load}
        trackBy={(g) => g.GrantId!}
        text={(g) => [g.GrantId, g.Name, g.GranteePrincipal, g.GranteeServicePrincipal, ...context(g)].join(' ')}
        placeholder={t('Find grants by grantee, name or encryption context')}
        selection="single"
        empty={<Empty title={t('No grants')} text={t('They appear with the first encrypted desktop or volume that uses the key.')} />}
        actions={(selected) => (
          <>
            <Button disabled={selected.length !== 1} onClick={() => setAsk({ grant: selected[0], retire: true })}>
              {t('Retire')}
            </Button>
            <Button disabled={selected.length !== 1} onClick={() => setAsk({ grant: selected[0], retire: false })}>
              {t('Revoke')}
            </Button>
          </>
        )}
        columns={[
          { id: 'grantee', header: t('Grantee'), minWidth: 160, cell: (g) => g.GranteePrincipal ?? g.GranteeServicePrincipal ?? '-', isRowHeader: true },
          { id: 'id', header: t('Grant ID'), minWidth: 150, cell: (g) => <Copy text={g.GrantId} label={`${g.GrantId!.slice(0, 10)}…`} /> },
          { id: 'ops', header: t('Operations'), minWidth: 160, cell: (g) => (g.Operations ?? []).join(', ') },
          {
            id: 'constraints',
            header: t('Constraints'),
            minWidth: 280,
            cell: (g) => (context(g).length ? context(g).map((line) => <Box key={line} variant="small" display="block">{line}</Box>) : t('None')),
          },
          { id: 'retiring', header: t('Retiring principal'), cell: (g) => g.RetiringPrincipal ?? g.RetiringServicePrincipal ?? '-' },
          { id: 'created', header: t('Created'), minWidth: 120, cell: (g) => time(g.CreationDate), sortingField: 'CreationDate' },
        ]}
      />
      {ask && (
        <Confirm
          title={ask.retire ? t('Retire grant') : t('Revoke grant')}
          button={ask.retire ? t('Retire') : t('Revoke')}
          typed={ask.grant.GrantId!.slice(0, 10)}
          onClose={(done) => {
            setAsk(null);
            if (done) load.reload();
          }}
          onConfirm={async () => {
            const [c, { RetireGrantCommand, RevokeGrantCommand }] = await kms(region);
            await (ask.retire ? c.send(new RetireGrantCommand({ KeyId: k.arn, GrantId: ask.grant.GrantId })) : c.send(new RevokeGrantCommand({ KeyId: k.id, GrantId: ask.grant.GrantId })));
            note({ type: 'success', content: ask.retire ? t('The grant is retired.') : t('The grant is revoked.') });
          }}
        >
          <Box>
            {ask.retire
              ? t('Retiring is for who the grant was made for or by: the work that needed it is done.')
              : t('Revoking takes the right away from its holder. A desktop or volume that depends on it does not start or attach any more.')}
          </Box>
          {context(ask.grant).map((line) => (
            <Box key={line} variant="code">
              {line}
            </Box>
          ))}
        </Confirm>
      )}
    </>
  );
}

export function PublicKeyTab({ k }: { k: Key }) {
  const region = useRegion();
  const load = useLoad(async () => {
    const [c, { GetPublicKeyCommand }] = await kms(region);
    const out = await c.send(new GetPublicKeyCommand({ KeyId: k.id }));
    const base64 = btoa(String.fromCharCode(...out.PublicKey!)).replace(/(.{64})/g, '$1\n');
    return `-----BEGIN PUBLIC KEY-----\n${base64.trimEnd()}\n-----END PUBLIC KEY-----`;
  }, [region, k.id]);
  if (load.error) return <ErrorBox error={load.error} title={`${t('Public key')}: ${t('not loaded')}`} />;
  return (
    <Container header={<Header variant="h2" actions={<Copy text={load.data} label={t('Copy')} />}>{t('Public key')}</Header>}>
      <Box variant="pre">{load.data}</Box>
    </Container>
  );
}

export function RegionalityTab({ k, onChange }: { k: Key; onChange: () => void }) {
  const region = useRegion();
  const note = useNote();
  const conf = k.meta!.MultiRegionConfiguration!;
  const all = [{ ...conf.PrimaryKey!, primary: true }, ...(conf.ReplicaKeys ?? []).map((r) => ({ ...r, primary: false }))];
  const [to, setTo] = useState<string | null>(null);
  const [promote, setPromote] = useState<string | null>(null);
  const a = useAction();
  const free = REGIONS.filter(([id]) => !all.some((r) => r.Region === id)).map(([id, name]) => ({ value: id, label: `${name} ${id}` }));
  const mine = conf.MultiRegionKeyType === 'PRIMARY';
  const closed = (done: boolean) => {
    setTo(null);
    setPromote(null);
    if (done) onChange();
  };
  return (
    <>
      <ErrorBox error={a.error} />
      <List
        title={t('Related multi-Region keys')}
        variant="container"
        filter={false}
        load={{ data: all, error: null, loading: false, reload: onChange }}
        trackBy={(r) => r.Region!}
        selection={mine ? 'single' : undefined}
        empty={<Empty title={t('No replicas')} />}
        actions={(selected) =>
          mine && (
            <>
              <Button disabled={selected.length !== 1 || selected[0].primary} onClick={() => setPromote(selected[0].Region!)}>
                {t('Change primary Region')}
              </Button>
              <Button onClick={() => setTo(free[0]?.value ?? '')}>{t('Create new replica keys')}</Button>
            </>
          )
        }
        columns={[
          { id: 'region', header: t('Region'), cell: (r) => r.Region, isRowHeader: true },
          { id: 'type', header: t('Type'), cell: (r) => t(r.primary ? 'primary' : 'replica') },
          { id: 'arn', header: 'ARN', cell: (r) => <Copy text={r.Arn} /> },
        ]}
      />
      {to !== null && (
        <Confirm
          title={t('Create new replica keys')}
          button={t('Create')}
          onClose={closed}
          onConfirm={async () => {
            const [c, { ReplicateKeyCommand }] = await kms(region);
            await c.send(new ReplicateKeyCommand({ KeyId: k.id, ReplicaRegion: to, Description: k.meta?.Description }));
            note({ type: 'success', content: t('The replica is created.') });
          }}
        >
          <FormField label={t('Region')}>
            <Select selectedOption={free.find((o) => o.value === to) ?? null} options={free} onChange={(e) => setTo(e.detail.selectedOption.value!)} />
          </FormField>
        </Confirm>
      )}
      {promote && (
        <Confirm
          title={t('Change primary Region')}
          button={t('Change primary Region')}
          onClose={closed}
          onConfirm={async () => {
            const [c, { UpdatePrimaryRegionCommand }] = await kms(region);
            await c.send(new UpdatePrimaryRegionCommand({ KeyId: k.id, PrimaryRegion: promote }));
            note({ type: 'success', content: t('The primary Region is changed.') });
          }}
        >
          <Box>{`${t('The key of this Region becomes the primary; the one here becomes its replica')}: ${promote}`}</Box>
        </Confirm>
      )}
    </>
  );
}
