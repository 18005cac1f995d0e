// Attached and inline policies of a user, group or role.

import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import FormField from '@cloudscape-design/components/form-field';
import Input from '@cloudscape-design/components/input';
import Link from '@cloudscape-design/components/link';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useState } from 'react';
import { document, iam, iamAll, type Kind, WORD } from '../lib/iam';
import { t } from '../lib/i18n';
import { administratorPolicy } from '../lib/keypolicy';
import { mistake, PolicyEditor } from '../lib/policy-editor';
import { Confirm, Empty, List, useFollow, useLoad, useNote } from '../lib/ui';

export function ChooseMany(p: { title: string; load: () => Promise<{ id: string; name: string }[]>; without: string[]; onAdd: (ids: string[]) => Promise<unknown>; onClose: (done: boolean) => void }) {
  const load = useLoad(p.load, []);
  const [chosen, setChosen] = useState<string[]>([]);
  return (
    <Confirm title={p.title} button={t('Add')} wide disabled={chosen.length === 0} onConfirm={() => p.onAdd(chosen)} onClose={p.onClose}>
      <List
        title={p.title}
        variant="embedded"
        load={{ ...load, data: load.data?.filter((x) => !p.without.includes(x.id)), reload: load.reload }}
        trackBy="id"
        text={(x) => x.name}
        selection="multi"
        empty={<Empty title={t('Nothing to choose from')} />}
        onSelect={(all) => setChosen(all.map((x) => x.id))}
        columns={[{ id: 'name', header: t('Name'), cell: (x) => x.name, isRowHeader: true }]}
      />
    </Confirm>
  );
}

type Row = { id: string; name: string; inline: boolean };

export function Permissions({ kind, name }: { kind: Kind; name: string }) {
  const w = WORD[kind];
  const who = { [`${w}Name`]: name };
  const note = useNote();
  const follow = useFollow();
  const load = useLoad<Row[]>(async () => {
    const [attached, inline] = await Promise.all([iamAll(`ListAttached${w}Policies`, 'AttachedPolicies', who), iamAll<string>(`List${w}Policies`, 'PolicyNames', who)]);
    return [...attached.map((p) => ({ id: p.PolicyArn, name: p.PolicyName, inline: false })), ...inline.map((n) => ({ id: `inline/${n}`, name: n, inline: true }))];
  }, [kind, name]);
  const [attaching, setAttaching] = useState(false);
  const [editing, setEditing] = useState<{ name: string; text: string; fresh: boolean } | null>(null);
  const [gone, setGone] = useState<Row[] | null>(null);
  const close = () => {
    setAttaching(false);
    setEditing(null);
    setGone(null);
    load.reload();
  };
  const open = async (r: Row) => setEditing({ name: r.name, fresh: false, text: document((await iam(`Get${w}Policy`, { ...who, PolicyName: r.name })).PolicyDocument) });
  return (
    <>
      <List<Row>
        title={t('Permissions policies')}
        description={kind === 'users' ? t('Those of the groups the user is in count too; they are on the groups’ pages.') : undefined}
        variant="container"
        load={load}
        trackBy="id"
        text={(r) => r.name}
        selection="multi"
        empty={<Empty title={t('No policies')} text={t('Attach a policy, or write one for this alone.')} />}
        actions={(selected) => (
          <>
            <Button disabled={selected.length === 0} onClick={() => setGone(selected)}>
              {t('Remove')}
            </Button>
            <Button onClick={() => setEditing({ name: '', text: administratorPolicy('arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab'), fresh: true })}>{t('Create inline policy')}</Button>
            <Button onClick={() => setAttaching(true)}>{t('Attach policies')}</Button>
          </>
        )}
        columns={[
          {
            id: 'name',
            header: t('Policy name'),
            cell: (r) =>
              r.inline ? (
                <Button variant="inline-link" onClick={() => open(r)}>
                  {r.name}
                </Button>
              ) : (
                <Link href={`/console/iam/policies/${encodeURIComponent(r.id)}`} onFollow={follow}>
                  {r.name}
                </Link>
              ),
            sortingField: 'name',
            isRowHeader: true,
          },
          { id: 'type', header: t('Type'), cell: (r) => (r.inline ? t('Inline') : r.id.includes('::aws:policy/') ? t('AWS managed') : t('Customer managed')) },
        ]}
      />
      {attaching && (
        <ChooseMany
          title={t('Attach policies')}
          load={async () => (await iamAll('ListPolicies', 'Policies', { Scope: 'All' })).map((p) => ({ id: p.Arn, name: p.PolicyName }))}
          without={(load.data ?? []).map((r) => r.id)}
          onAdd={async (arns) => {
            for (const PolicyArn of arns) await iam(`Attach${w}Policy`, { ...who, PolicyArn });
            note({ type: 'success', content: t('Attached.') });
          }}
          onClose={close}
        />
      )}
      {editing && (
        <Confirm
          title={editing.fresh ? t('Create inline policy') : `${t('Inline policy')}: ${editing.name}`}
          button={t('Save')}
          wide
          disabled={!editing.name || !!mistake(editing.text)}
          onConfirm={async () => {
            await iam(`Put${w}Policy`, { ...who, PolicyName: editing.name, PolicyDocument: editing.text });
            note({ type: 'success', content: t('The policy is saved.') });
          }}
          onClose={close}
        >
          {editing.fresh && (
            <SpaceBetween size="xs">
              <FormField label={t('Policy name')}>
                <Input value={editing.name} onChange={(e) => setEditing({ ...editing, name: e.detail.value })} />
              </FormField>
              <Box variant="small">{t('The document is what a WorkSpaces administrator needs for one key: put in the ARN of yours.')}</Box>
            </SpaceBetween>
          )}
          <PolicyEditor label={t('Policy document')} value={editing.text} onChange={(text) => setEditing({ ...editing, text })} rows={16} limit={{ User: 2048, Group: 5120, Role: 10240 }[w]} />
        </Confirm>
      )}
      {gone && (
        <Confirm
          title={t('Remove policies')}
          button={t('Remove')}
          typed={gone.some((r) => r.inline) ? name : undefined}
          onConfirm={async () => {
            for (const r of gone) await (r.inline ? iam(`Delete${w}Policy`, { ...who, PolicyName: r.name }) : iam(`Detach${w}Policy`, { ...who, PolicyArn: r.id }));
          }}
          onClose={close}
        >
          <Box>{t('What they allow ends at once. Managed policies are detached and stay; inline policies are deleted.')}</Box>
          <Box>{gone.map((r) => r.name).join(', ')}</Box>
        </Confirm>
      )}
    </>
  );
}
