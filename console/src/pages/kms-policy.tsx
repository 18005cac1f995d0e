// The Key policy tab. Default view: who administers and who uses the key. Policy view: the document.

import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Checkbox from '@cloudscape-design/components/checkbox';
import Container from '@cloudscape-design/components/container';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Spinner from '@cloudscape-design/components/spinner';
import StatusIndicator from '@cloudscape-design/components/status-indicator';
import { useState } from 'react';
import * as client from '../lib/clients';
import { t } from '../lib/i18n';
import type { Key } from '../lib/kms';
import * as kp from '../lib/keypolicy';
import { mistake, PolicyEditor } from '../lib/policy-editor';
import { AddPrincipals, describePrincipal } from '../lib/principals';
import { Confirm, Empty, ErrorBox, List, useAction, useLoad, useNote, useRegion } from '../lib/ui';

type Change = (d: kp.PolicyDocument) => kp.PolicyDocument;
type Ask = { what: 'addAdmins' | 'addUsers' | 'addAccount' } | { what: 'removeAdmins' | 'removeUsers' | 'removeAccounts'; who: string[] };

export function KeyPolicyTab({ k, readOnly }: { k: Key; readOnly: boolean }) {
  const region = useRegion();
  const note = useNote();
  const get = async () => {
    const [c, { GetKeyPolicyCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
    return (await c.send(new GetKeyPolicyCommand({ KeyId: k.id, PolicyName: 'default' }))).Policy!;
  };
  const put = async (Policy: string) => {
    const [c, { PutKeyPolicyCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
    await c.send(new PutKeyPolicyCommand({ KeyId: k.id, PolicyName: 'default', Policy }));
    note({ type: 'success', content: t('The key policy is saved.') });
    load.reload();
  };
  // The change goes into the policy as it is now, not as it was when the page was opened.
  const change = async (f: Change) => put(kp.formatPolicy(f(kp.parsePolicy(await get()))));
  const load = useLoad(get, [region, k.id]);
  const [raw, setRaw] = useState(false);
  const [ask, setAsk] = useState<Ask | null>(null);
  const a = useAction();
  if (load.error) return <ErrorBox error={load.error} title={`${t('Key policy')}: ${t('not loaded')}`} />;
  if (!load.data) return <Spinner />;
  const doc = kp.parsePolicy(load.data);
  const view = kp.defaultView(doc);
  const close = () => setAsk(null);

  if (raw || !view) return <PolicyView text={load.data} readOnly={readOnly} onSave={put} toDefault={view ? () => setRaw(false) : undefined} />;
  const arns = (all: string[]) => all.map((arn) => ({ arn, ...describePrincipal(arn) }));
  const table = (title: string, text: string, all: string[], add: Ask['what'], remove: Ask['what']) => (
    <List
      title={title}
      description={text}
      variant="container"
      load={{ data: arns(all), error: null, loading: false, reload: load.reload }}
      trackBy="arn"
      text={(p) => p.arn}
      placeholder={t('Find users and roles')}
      selection={readOnly ? undefined : 'multi'}
      empty={<Empty title={t('Nobody')} text={readOnly ? undefined : t('Choose Add to name IAM users and roles.')} />}
      actions={(selected) =>
        readOnly ? null : (
          <>
            <Button disabled={selected.length === 0} ariaLabel={`${t('Remove')}: ${title}`} onClick={() => setAsk({ what: remove, who: selected.map((p) => p.arn) } as Ask)}>
              {t('Remove')}
            </Button>
            <Button ariaLabel={`${t('Add')}: ${title}`} onClick={() => setAsk({ what: add } as Ask)}>
              {t('Add')}
            </Button>
          </>
        )
      }
      columns={[
        { id: 'name', header: t('Name'), cell: (p) => (p.gone ? <StatusIndicator type="warning">{`${p.name} (${t('deleted')})`}</StatusIndicator> : p.name), sortingField: 'name', isRowHeader: true },
        { id: 'path', header: t('Path'), cell: (p) => p.path },
        { id: 'type', header: t('Type'), cell: (p) => t(p.type) },
      ]}
    />
  );
  return (
    <SpaceBetween size="l">
      <Header
        variant="h2"
        actions={<Button onClick={() => setRaw(true)}>{t('Switch to policy view')}</Button>}
        description={view.others > 0 ? `${t('Statements that only the policy view shows')}: ${view.others}` : undefined}
      >
        {t('Key policy')}
      </Header>
      <ErrorBox error={a.error} title={t('The key policy is not saved')} />
      {table(t('Key administrators'), t('Choose the IAM users and roles who can administer this key through the KMS API.'), view.administrators, 'addAdmins', 'removeAdmins')}
      <Container header={<Header variant="h2">{t('Key deletion')}</Header>}>
        <Checkbox checked={view.deletion} disabled={readOnly || a.busy || view.administrators.length === 0} onChange={(e) => a.run(() => change((d) => kp.allowDeletion(d, e.detail.checked)))}>
          {t('Allow key administrators to delete this key.')}
        </Checkbox>
      </Container>
      {table(t('Key users'), t('The IAM users and roles who can use this key in cryptographic operations, and through AWS services such as WorkSpaces.'), view.users, 'addUsers', 'removeUsers')}
      <List
        title={t('Other AWS accounts')}
        description={t('Accounts that can use this key; their administrators decide who in them.')}
        variant="container"
        filter={false}
        load={{ data: view.accounts.map((id) => ({ id })), error: null, loading: false, reload: load.reload }}
        trackBy="id"
        selection={readOnly ? undefined : 'multi'}
        empty={<Empty title={t('No other accounts')} />}
        actions={(selected) =>
          readOnly ? null : (
            <>
              <Button disabled={selected.length === 0} ariaLabel={`${t('Remove')}: ${t('Other AWS accounts')}`} onClick={() => setAsk({ what: 'removeAccounts', who: selected.map((x) => x.id) })}>
                {t('Remove')}
              </Button>
              <Button onClick={() => setAsk({ what: 'addAccount' })}>
                {t('Add other AWS accounts')}
              </Button>
            </>
          )
        }
        columns={[{ id: 'id', header: t('Account ID'), cell: (x) => x.id, isRowHeader: true }]}
      />
      {ask?.what === 'addAdmins' && (
        <AddPrincipals title={t('Add key administrators')} text={t('They can administer the key; using it is another right.')} without={view.administrators} onAdd={(who) => change((d) => kp.addAdministrators(d, who))} onClose={close} />
      )}
      {ask?.what === 'addUsers' && (
        <AddPrincipals
          title={t('Add key users')}
          text={t('They can use the key directly, and let AWS services such as WorkSpaces and EBS use it for them by grants.')}
          without={view.users}
          onAdd={(who) => change((d) => kp.addKeyUsers(d, who))}
          onClose={close}
        />
      )}
      {ask?.what === 'addAccount' && <AddAccount onAdd={(id) => change((d) => kp.addAccounts(d, [id]))} onClose={close} />}
      {ask && 'who' in ask && (
        <Confirm
          title={t('Remove')}
          button={t('Remove')}
          onClose={close}
          onConfirm={() => change((d) => (ask.what === 'removeAdmins' ? kp.removeAdministrators(d, ask.who) : ask.what === 'removeUsers' ? kp.removeKeyUsers(d, ask.who) : kp.removeAccounts(d, ask.who)))}
        >
          <Box>
            {ask.what === 'removeUsers'
              ? t('They can no longer use the key by its key policy. Desktops that run keep their grants.')
              : ask.what === 'removeAdmins'
                ? t('They can no longer administer the key by its key policy.')
                : t('Nobody of the account can use the key by its key policy any more.')}
          </Box>
          {ask.who.map((w) => (
            <Box key={w} variant="code">
              {w}
            </Box>
          ))}
        </Confirm>
      )}
    </SpaceBetween>
  );
}

function AddAccount({ onAdd, onClose }: { onAdd: (id: string) => Promise<unknown>; onClose: (done: boolean) => void }) {
  const [id, setId] = useState('');
  const ok = /^\d{12}$/.test(id);
  return (
    <Confirm title={t('Add other AWS accounts')} button={t('Add')} disabled={!ok} onConfirm={() => onAdd(id)} onClose={onClose}>
      <FormField label={t('Account ID')} errorText={id && !ok ? t('An account ID has 12 digits.') : ''}>
        <Input value={id} inputMode="numeric" onChange={(e) => setId(e.detail.value.trim())} placeholder="444455556666" />
      </FormField>
    </Confirm>
  );
}

function PolicyView({ text, readOnly, onSave, toDefault }: { text: string; readOnly: boolean; onSave: (text: string) => Promise<unknown>; toDefault?: () => void }) {
  const pretty = () => {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text;
    }
  };
  const [edited, setEdited] = useState(pretty);
  const [editing, setEditing] = useState(false);
  const a = useAction();
  return (
    <Container
      header={
        <Header
          variant="h2"
          actions={
            <SpaceBetween direction="horizontal" size="xs">
              {toDefault && <Button onClick={toDefault}>{t('Switch to default view')}</Button>}
              {!readOnly && !editing && (
                <Button
                  onClick={() => {
                    setEdited(pretty());
                    setEditing(true);
                  }}
                >
                  {t('Edit')}
                </Button>
              )}
            </SpaceBetween>
          }
        >
          {t('Key policy')}
        </Header>
      }
    >
      <SpaceBetween size="m">
        {!toDefault && !readOnly && <Alert type="info">{t('This policy has statements that the default view cannot show, so it is shown as it is.')}</Alert>}
        <PolicyEditor label={t('Policy document')} value={editing ? edited : pretty()} onChange={setEdited} readOnly={!editing} />
        <ErrorBox error={a.error} title={t('The key policy is not saved')} />
        {editing && (
          <SpaceBetween direction="horizontal" size="xs">
            <Button variant="link" onClick={() => (setEditing(false), a.clear())}>
              {t('Cancel')}
            </Button>
            <Button variant="primary" loading={a.busy} disabled={!!mistake(edited)} onClick={() => a.run(() => onSave(edited)).then((ok) => ok && setEditing(false))}>
              {t('Save changes')}
            </Button>
          </SpaceBetween>
        )}
      </SpaceBetween>
    </Container>
  );
}
