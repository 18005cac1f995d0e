// Custom key stores: AWS CloudHSM clusters and external key stores that hold the keys
// themselves. The list, one store, and the forms that make and change it.

import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import BreadcrumbGroup from '@cloudscape-design/components/breadcrumb-group';
import Button from '@cloudscape-design/components/button';
import ButtonDropdown from '@cloudscape-design/components/button-dropdown';
import Container from '@cloudscape-design/components/container';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import Link from '@cloudscape-design/components/link';
import RadioGroup from '@cloudscape-design/components/radio-group';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Spinner from '@cloudscape-design/components/spinner';
import Textarea from '@cloudscape-design/components/textarea';
import type { CustomKeyStoresListEntry as Store } from '@aws-sdk/client-kms';
import { useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import * as client from '../lib/clients';
import { t } from '../lib/i18n';
import { type Key, keyName, listKeys, listStores } from '../lib/kms';
import { Confirm, Copy, Empty, ErrorBox, List, Status, time, useAction, useFollow, useLoad, useNote, useRegion } from '../lib/ui';
import { KeyState } from './kms-list';

const isExternal = (s: Store) => s.CustomKeyStoreType === 'EXTERNAL_KEY_STORE';
export const storeType = (s: Store) => (isExternal(s) ? t('External key store') : t('AWS CloudHSM key store'));
const state = (s: Store) => s.ConnectionState ?? '';
const State = ({ s }: { s: Store }) => <Status value={state(s)} label={t(STATE[state(s)] ?? state(s))} />;

const STATE: Record<string, string> = { CONNECTED: 'Connected', CONNECTING: 'Connecting', FAILED: 'Failed', DISCONNECTED: 'Disconnected', DISCONNECTING: 'Disconnecting' };

// Why a connection failed, and what to do. Source: ConnectionErrorCode of the API's
// CustomKeyStoresListEntry.
const ABOUT: Record<string, string> = {
  CLUSTER_NOT_FOUND: 'The CloudHSM cluster is not in the configuration of the server. Add it there, or choose another cluster.',
  INSUFFICIENT_CLOUDHSM_HSMS: 'The cluster has too few active HSMs: it needs one to be connected, and two for new keys.',
  INSUFFICIENT_FREE_ADDRESSES_IN_SUBNET: 'A private subnet of the cluster has no free address.',
  INTERNAL_ERROR: 'Something went wrong in the key service. Connect again.',
  INVALID_CREDENTIALS: 'The password of kmsuser is not the one that the cluster has. Change it in the store, then connect again.',
  NETWORK_ERRORS: 'The cluster cannot be reached. Check the network, then connect again.',
  SUBNET_NOT_FOUND: 'A subnet of the cluster was deleted.',
  USER_LOCKED_OUT: 'kmsuser is locked after too many wrong passwords. Set a new password in the cluster and in the store, then connect again.',
  USER_LOGGED_IN: 'kmsuser is logged in to the cluster elsewhere. Log it out, then connect again.',
  USER_NOT_FOUND: 'The cluster has no user kmsuser. Make it there, and give the store its password.',
  XKS_PROXY_ACCESS_DENIED: 'The proxy refuses the credential. Give the store the credential that the proxy has, then connect again.',
  XKS_PROXY_INVALID_CONFIGURATION: 'The proxy is not configured as the store says: look at its URI path and endpoint.',
  XKS_PROXY_INVALID_RESPONSE: 'The answer of the proxy is not one of the External Key Store Proxy API.',
  XKS_PROXY_INVALID_TLS_CONFIGURATION: 'The certificate of the proxy is not trusted, not for its name, or has expired.',
  XKS_PROXY_NOT_REACHABLE: 'The proxy cannot be reached at its URI. Check that it runs, its name and the network, then connect again.',
  XKS_PROXY_TIMED_OUT: 'The proxy took too long to answer.',
  XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION: 'The VPC endpoint service is not set up for the store.',
  XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND: 'The VPC endpoint service is not in the configuration of the server.',
};

const send = async (region: string, what: (m: typeof import('@aws-sdk/client-kms')) => unknown) => {
  const [c, m] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
  return c.send(what(m) as never) as Promise<object> as Promise<{ CustomKeyStoreId?: string }>;
};

export default function Stores() {
  const region = useRegion();
  const navigate = useNavigate();
  const follow = useFollow();
  const load = useLoad(() => listStores(region), [region], 5000);
  const create = (
    <Button variant="primary" onClick={() => navigate('/kms/stores/create')}>
      {t('Create key store')}
    </Button>
  );
  return (
    <List<Store>
      title={t('Custom key stores')}
      description={t('Keys whose material stays in an HSM cluster or a key manager of your own.')}
      load={load}
      trackBy="CustomKeyStoreId"
      placeholder={t('Find key stores by name or ID')}
      text={(s) => [s.CustomKeyStoreId, s.CustomKeyStoreName, s.ConnectionState, s.XksProxyConfiguration?.UriEndpoint, s.CloudHsmClusterId].join(' ')}
      empty={<Empty title={t('No custom key stores')} text={t('Create one to use keys of an AWS CloudHSM cluster, or of a key manager behind an external key store proxy.')} />}
      actions={() => create}
      columns={[
        {
          id: 'name',
          header: t('Name'),
          isRowHeader: true,
          sortingField: 'CustomKeyStoreName',
          cell: (s) => (
            <Link href={`/console/kms/stores/${s.CustomKeyStoreId}`} onFollow={follow}>
              {s.CustomKeyStoreName}
            </Link>
          ),
        },
        { id: 'id', header: t('Key store ID'), cell: (s) => s.CustomKeyStoreId, sortingField: 'CustomKeyStoreId' },
        { id: 'state', header: t('Connection state'), minWidth: 140, cell: (s) => <State s={s} />, sortingField: 'ConnectionState' },
        { id: 'type', header: t('Type'), cell: storeType },
        { id: 'where', header: t('Where its keys are'), cell: (s) => s.CloudHsmClusterId ?? s.XksProxyConfiguration?.UriEndpoint },
      ]}
    />
  );
}

type Doing = 'connect' | 'disconnect' | 'update' | 'delete' | null;

export function StorePage() {
  const { id = '' } = useParams();
  const region = useRegion();
  const navigate = useNavigate();
  const follow = useFollow();
  const load = useLoad(() => listStores(region, id).then((s) => s[0]), [region, id], 3000);
  const keys = useLoad(async () => (await listKeys(region)).filter((k) => k.meta?.CustomKeyStoreId === id), [region, id]);
  const [doing, setDoing] = useState<Doing>(null);
  const s = load.data;
  if (!s)
    return (
      <SpaceBetween size="m">
        <Header variant="h1">{t('Custom key store')}</Header>
        {load.error ? <ErrorBox error={load.error} title={`${id}: ${t('not loaded')}`} /> : <Spinner size="large" />}
      </SpaceBetween>
    );
  const x = s.XksProxyConfiguration;
  const connected = state(s) === 'CONNECTED';
  return (
    <SpaceBetween size="l">
      <BreadcrumbGroup
        ariaLabel={t('Breadcrumbs')}
        onFollow={follow}
        items={[
          { text: 'KMS', href: '/console/kms/customer' },
          { text: t('Custom key stores'), href: '/console/kms/stores' },
          { text: s.CustomKeyStoreName ?? id, href: '' },
        ]}
      />
      <Header
        variant="h1"
        actions={
          <SpaceBetween direction="horizontal" size="xs">
            <ButtonDropdown
              items={[
                { id: 'connect', text: t('Connect'), disabled: !/^(DISCONNECTED|FAILED)$/.test(state(s)) },
                { id: 'disconnect', text: t('Disconnect'), disabled: state(s) === 'DISCONNECTED' },
                { id: 'update', text: t('Edit'), disabled: !/^(DISCONNECTED|CONNECTED)$/.test(state(s)) },
                { id: 'delete', text: t('Delete'), disabled: state(s) !== 'DISCONNECTED' },
              ]}
              onItemClick={(e) => setDoing(e.detail.id as Doing)}
            >
              {t('Key store actions')}
            </ButtonDropdown>
            <Button variant="primary" disabled={!connected} onClick={() => navigate(`/kms/create?store=${id}`)}>
              {t('Create a KMS key in this key store')}
            </Button>
          </SpaceBetween>
        }
      >
        {s.CustomKeyStoreName}
      </Header>
      <ErrorBox error={load.error} />
      {state(s) === 'FAILED' && (
        <Alert type="error" header={`${t('The last connection failed')}: ${s.ConnectionErrorCode}`}>
          {t(ABOUT[s.ConnectionErrorCode ?? ''] ?? 'The documentation of the API says what the code means.')}
          <Box margin={{ top: 'xs' }}>{t('Disconnect the key store before you change it.')}</Box>
        </Alert>
      )}
      <Container header={<Header variant="h2">{t('General configuration')}</Header>}>
        <KeyValuePairs
          columns={3}
          items={[
            { label: t('Key store ID'), value: <Copy text={s.CustomKeyStoreId} /> },
            { label: t('Type'), value: storeType(s) },
            { label: t('Connection state'), value: <State s={s} /> },
            { label: t('Creation date'), value: time(s.CreationDate) },
            ...(x
              ? [
                  { label: t('Proxy connectivity'), value: x.Connectivity === 'VPC_ENDPOINT_SERVICE' ? t('VPC endpoint service') : t('Public endpoint') },
                  { label: t('Proxy URI endpoint'), value: <Copy text={x.UriEndpoint} /> },
                  { label: t('Proxy URI path'), value: x.UriPath },
                  { label: t('Proxy credential: access key ID'), value: x.AccessKeyId },
                  ...(x.VpcEndpointServiceName ? [{ label: t('VPC endpoint service name'), value: x.VpcEndpointServiceName }] : []),
                ]
              : [{ label: t('CloudHSM cluster ID'), value: s.CloudHsmClusterId }]),
          ]}
        />
      </Container>
      <List<Key>
        title={t('KMS keys in this key store')}
        variant="container"
        load={keys}
        filter={false}
        trackBy="id"
        empty={<Empty title={t('No keys')} text={t('Connect the key store, then create a KMS key in it.')} />}
        columns={[
          {
            id: 'id',
            header: t('Key'),
            isRowHeader: true,
            cell: (k) => (
              <Link href={`/console/kms/keys/${k.id}`} onFollow={follow}>
                {keyName(k)}
              </Link>
            ),
          },
          { id: 'state', header: t('Status'), cell: (k) => <KeyState k={k} /> },
          ...(x ? [{ id: 'ext', header: t('External key ID'), cell: (k: Key) => k.meta?.XksKeyConfiguration?.Id ?? '-' }] : []),
        ]}
      />
      {doing && (
        <StoreAction
          doing={doing}
          s={s}
          onClose={(done) => {
            setDoing(null);
            if (!done) return;
            if (doing === 'delete') navigate('/kms/stores');
            else load.reload();
          }}
        />
      )}
    </SpaceBetween>
  );
}

function StoreAction({ doing, s, onClose }: { doing: NonNullable<Doing>; s: Store; onClose: (done: boolean) => void }) {
  const region = useRegion();
  const note = useNote();
  const [form, setForm] = useState(() => formOf(s));
  const CustomKeyStoreId = s.CustomKeyStoreId!;
  const name = s.CustomKeyStoreName!;
  const act = (text: string, what: Parameters<typeof send>[1]) => async () => {
    await send(region, what);
    note({ type: 'success', content: `${name}: ${text}` });
  };
  if (doing === 'connect')
    return (
      <Confirm title={t('Connect custom key store')} button={t('Connect')} onClose={onClose} onConfirm={act(t('the connection is being made.'), (m) => new m.ConnectCustomKeyStoreCommand({ CustomKeyStoreId }))}>
        <Box>{t('The key service connects to the cluster or the proxy. Then keys can be created and used in the key store.')}</Box>
      </Confirm>
    );
  if (doing === 'disconnect')
    return (
      <Confirm title={t('Disconnect custom key store')} button={t('Disconnect')} typed={name} onClose={onClose} onConfirm={act(t('it is disconnected.'), (m) => new m.DisconnectCustomKeyStoreCommand({ CustomKeyStoreId }))}>
        <Alert type="warning">{t('While it is disconnected, none of its keys can be used: desktops and volumes encrypted with them do not start and do not attach.')}</Alert>
      </Confirm>
    );
  if (doing === 'delete')
    return (
      <Confirm title={t('Delete custom key store')} button={t('Delete')} typed={name} onClose={onClose} onConfirm={act(t('it is deleted.'), (m) => new m.DeleteCustomKeyStoreCommand({ CustomKeyStoreId }))}>
        <Box>{t('Only a key store without KMS keys can be deleted. The cluster or the key manager, and what is in it, stays.')}</Box>
      </Confirm>
    );
  return (
    <Confirm
      title={t('Edit custom key store')}
      button={t('Save changes')}
      wide
      disabled={Object.keys(changes(s, form)).length === 0}
      onClose={onClose}
      onConfirm={act(t('the changes are saved.'), (m) => new m.UpdateCustomKeyStoreCommand({ CustomKeyStoreId, ...changes(s, form) } as never))}
    >
      {state(s) === 'CONNECTED' && <Alert type="info">{t('While it is connected, only its name, and the path and credential of a proxy, can be changed.')}</Alert>}
      <Fields form={form} onChange={setForm} editing={state(s)} />
    </Confirm>
  );
}

interface Form {
  external: boolean;
  name: string;
  cluster: string;
  password: string;
  anchor: string;
  connectivity: string;
  endpoint: string;
  path: string;
  service: string;
  accessKeyId: string;
  secret: string;
}

const NEW: Form = { external: true, name: '', cluster: '', password: '', anchor: '', connectivity: 'PUBLIC_ENDPOINT', endpoint: 'https://', path: '/kms/xks/v1', service: '', accessKeyId: '', secret: '' };

const formOf = (s: Store): Form => ({
  ...NEW,
  external: isExternal(s),
  name: s.CustomKeyStoreName ?? '',
  cluster: s.CloudHsmClusterId ?? '',
  connectivity: s.XksProxyConfiguration?.Connectivity ?? NEW.connectivity,
  endpoint: s.XksProxyConfiguration?.UriEndpoint ?? '',
  path: s.XksProxyConfiguration?.UriPath ?? '',
  service: s.XksProxyConfiguration?.VpcEndpointServiceName ?? '',
  accessKeyId: s.XksProxyConfiguration?.AccessKeyId ?? '',
});

const credential = (f: Form) => ({ XksProxyAuthenticationCredential: { AccessKeyId: f.accessKeyId, RawSecretAccessKey: f.secret } });

/** What of a form is new, as UpdateCustomKeyStore takes it. */
function changes(s: Store, f: Form): Record<string, unknown> {
  const was = formOf(s);
  const differs = <K extends keyof Form>(key: K, member: string) => (f[key] !== was[key] && f[key] !== '' ? { [member]: f[key] } : {});
  return {
    ...differs('name', 'NewCustomKeyStoreName'),
    ...differs('cluster', 'CloudHsmClusterId'),
    ...differs('password', 'KeyStorePassword'),
    ...differs('connectivity', 'XksProxyConnectivity'),
    ...differs('endpoint', 'XksProxyUriEndpoint'),
    ...differs('path', 'XksProxyUriPath'),
    ...differs('service', 'XksProxyVpcEndpointServiceName'),
    ...(f.secret ? credential(f) : {}),
  };
}

/** The properties of a store. editing is the state of one that exists, which bounds what may change. */
function Fields({ form, onChange, editing = '' }: { form: Form; onChange: (f: Form) => void; editing?: string }) {
  const live = editing === 'CONNECTED';
  const text = (key: keyof Form, label: string, description = '', more: { type?: 'password'; disabled?: boolean; placeholder?: string } = {}) => (
    <FormField label={label} description={description}>
      <Input value={form[key] as string} onChange={(e) => onChange({ ...form, [key]: e.detail.value })} autoComplete={false} {...more} />
    </FormField>
  );
  const kept = editing ? t('Left empty, it stays as it is.') : '';
  return (
    <SpaceBetween size="l">
      {text('name', t('Key store name'), t('It is not secret, and is recorded in CloudTrail.'))}
      {!form.external ? (
        <SpaceBetween size="l">
          {text('cluster', t('CloudHSM cluster ID'), t('A cluster in the configuration of the server, which no other key store uses.'), { disabled: live, placeholder: 'cluster-…' })}
          {!editing && (
            <FormField label={t('Trust anchor certificate')} description={t('The certificate (PEM) with which the cluster was initialised, customerCA.crt.')}>
              <Textarea value={form.anchor} onChange={(e) => onChange({ ...form, anchor: e.detail.value })} rows={5} placeholder="-----BEGIN CERTIFICATE-----" />
            </FormField>
          )}
          {text('password', t('Password of kmsuser'), kept, { type: 'password', disabled: live })}
        </SpaceBetween>
      ) : (
        <SpaceBetween size="l">
          <FormField label={t('Proxy connectivity')}>
            <RadioGroup
              value={form.connectivity}
              onChange={(e) => onChange({ ...form, connectivity: e.detail.value })}
              items={[
                { value: 'PUBLIC_ENDPOINT', label: t('Public endpoint'), description: t('The proxy is reached at the host name of its URI, or where the configuration of the server says.'), disabled: live },
                { value: 'VPC_ENDPOINT_SERVICE', label: t('VPC endpoint service'), description: t('The proxy is reached where the configuration of the server says for the name of the service.'), disabled: live },
              ]}
            />
          </FormField>
          {form.connectivity === 'VPC_ENDPOINT_SERVICE' && text('service', t('VPC endpoint service name'), '', { disabled: live, placeholder: 'com.amazonaws.vpce.…' })}
          {text('endpoint', t('Proxy URI endpoint'), t('https:// and the host name, without a path.'), { disabled: live })}
          {text('path', t('Proxy URI path'), t('It ends with /kms/xks/v1.'))}
          {text('accessKeyId', t('Proxy credential: access key ID'), t('20 to 30 capital letters and digits 2 to 7.'))}
          {text('secret', t('Proxy credential: secret access key'), kept || t('43 to 64 letters, digits and + / =. It is kept encrypted and never shown again.'), { type: 'password' })}
        </SpaceBetween>
      )}
    </SpaceBetween>
  );
}

export function CreateStore() {
  const region = useRegion();
  const navigate = useNavigate();
  const note = useNote();
  const a = useAction();
  const [f, setForm] = useState(NEW);
  const needed = f.external ? [f.name, f.endpoint.replace('https://', ''), f.path, f.accessKeyId, f.secret, f.connectivity === 'VPC_ENDPOINT_SERVICE' ? f.service : '-'] : [f.name, f.cluster, f.anchor, f.password];
  const create = () =>
    a.run(async () => {
      const out = await send(
        region,
        (m) =>
          new m.CreateCustomKeyStoreCommand({
            CustomKeyStoreName: f.name,
            ...(f.external
              ? { CustomKeyStoreType: 'EXTERNAL_KEY_STORE', XksProxyConnectivity: f.connectivity as never, XksProxyUriEndpoint: f.endpoint, XksProxyUriPath: f.path, XksProxyVpcEndpointServiceName: f.connectivity === 'VPC_ENDPOINT_SERVICE' ? f.service : undefined, ...credential(f) }
              : { CustomKeyStoreType: 'AWS_CLOUDHSM', CloudHsmClusterId: f.cluster, TrustAnchorCertificate: f.anchor, KeyStorePassword: f.password }),
          }),
      );
      note({ type: 'success', content: `${f.name}: ${t('the key store is created. Connect it to use it.')}` });
      navigate(`/kms/stores/${out.CustomKeyStoreId}`);
    });
  return (
    <SpaceBetween size="l">
      <Header variant="h1">{t('Create custom key store')}</Header>
      <Container>
        <SpaceBetween size="l">
          <FormField label={t('Type')}>
            <RadioGroup
              value={f.external ? 'external' : 'hsm'}
              onChange={(e) => setForm({ ...f, external: e.detail.value === 'external' })}
              items={[
                { value: 'external', label: t('External key store'), description: t('Keys in a key manager outside, reached through an external key store proxy.') },
                { value: 'hsm', label: t('AWS CloudHSM key store'), description: t('Keys in an HSM cluster, which never leave it.') },
              ]}
            />
          </FormField>
          <Fields form={f} onChange={setForm} />
        </SpaceBetween>
      </Container>
      <ErrorBox error={a.error} title={t('The key store is not created')} />
      <Box float="right">
        <SpaceBetween direction="horizontal" size="xs">
          <Button variant="link" onClick={() => navigate('/kms/stores')}>
            {t('Cancel')}
          </Button>
          <Button variant="primary" loading={a.busy} disabled={needed.some((x) => x.trim() === '')} onClick={create}>
            {t('Create key store')}
          </Button>
        </SpaceBetween>
      </Box>
    </SpaceBetween>
  );
}
