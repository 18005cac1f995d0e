import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Checkbox from '@cloudscape-design/components/checkbox';
import FormField from '@cloudscape-design/components/form-field';
import Input from '@cloudscape-design/components/input';
import Link from '@cloudscape-design/components/link';
import RadioGroup from '@cloudscape-design/components/radio-group';
import Select from '@cloudscape-design/components/select';
import SpaceBetween from '@cloudscape-design/components/space-between';
import type { TableProps } from '@cloudscape-design/components/table';
import { useState } from 'react';
import { Navigate, useNavigate, useParams } from 'react-router';
import { deleteEntity, iam, iamAll, type Kind, WORD } from '../lib/iam';
import { t } from '../lib/i18n';
import { mistake, PolicyEditor } from '../lib/policy-editor';
import { getState } from '../lib/session';
import { Confirm, Empty, List, time, useFollow, useLoad, useNote } from '../lib/ui';

interface Row {
  id: string; // name, or ARN of a policy
  name: string;
  path: string;
  arn: string;
  created?: Date;
  about: string;
}

const TEXT: Record<Kind, { title: string; one: string; empty: string; begin: string; find: string; create: string }> = {
  users: { title: 'Users', one: 'user', empty: 'No users', begin: 'Create a user for each person, and give permissions by groups.', find: 'Find users', create: 'Create user' },
  groups: { title: 'Groups', one: 'group', empty: 'No groups', begin: 'Create a group for each kind of work, attach policies to it, and add users.', find: 'Find groups', create: 'Create group' },
  roles: { title: 'Roles', one: 'role', empty: 'No roles', begin: 'Create a role for what a person or program does for a while.', find: 'Find roles', create: 'Create role' },
  policies: { title: 'Policies', one: 'policy', empty: 'No policies', begin: 'Create a policy, then attach it to groups, roles or users.', find: 'Find policies', create: 'Create policy' },
};

const isKind = (k: string | undefined): k is Kind => !!k && k in TEXT;

export default function Iam() {
  const { kind } = useParams();
  return isKind(kind) ? <Entities kind={kind} key={kind} /> : <Navigate to="/iam/users" replace />;
}

async function list(kind: Kind, scope: string): Promise<Row[]> {
  if (kind === 'policies')
    return (await iamAll('ListPolicies', 'Policies', { Scope: scope })).map((p) => ({
      id: p.Arn,
      name: p.PolicyName,
      path: p.Path,
      arn: p.Arn,
      created: p.UpdateDate,
      about: `${p.AttachmentCount ?? 0}`,
    }));
  const w = WORD[kind];
  return (await iamAll(`List${w}s`, `${w}s`)).map((e) => ({
    id: e[`${w}Name`],
    name: e[`${w}Name`],
    path: e.Path,
    arn: e.Arn,
    created: e.CreateDate,
    about: kind === 'users' ? (e.PasswordLastUsed ? time(e.PasswordLastUsed) : '-') : kind === 'roles' ? (e.Description ?? '-') : '',
  }));
}

function Entities({ kind }: { kind: Kind }) {
  const [scope, setScope] = useState('All');
  const load = useLoad(() => list(kind, scope), [kind, scope]);
  const navigate = useNavigate();
  const follow = useFollow();
  const note = useNote();
  const [creating, setCreating] = useState(false);
  const [gone, setGone] = useState<Row | null>(null);
  const text = TEXT[kind];
  const href = (r: Row) => `/iam/${kind}/${encodeURIComponent(r.id)}`;
  const about: TableProps.ColumnDefinition<Row>[] =
    kind === 'groups' ? [] : [{ id: 'about', header: t({ users: 'Last sign-in to the console', roles: 'Description', policies: 'Attached entities' }[kind as 'users']), cell: (r) => r.about }];
  return (
    <>
      <List<Row>
        title={t(text.title)}
        load={load}
        trackBy="id"
        placeholder={t(text.find)}
        text={(r) => `${r.name} ${r.path} ${r.about}`}
        selection="single"
        empty={<Empty title={t(text.empty)} text={t(text.begin)} action={<Button onClick={() => setCreating(true)}>{t(text.create)}</Button>} />}
        filters={
          kind === 'policies' && (
            <Select
              ariaLabel={t('Filter by type')}
              selectedOption={SCOPES().find((s) => s.value === scope)!}
              options={SCOPES()}
              onChange={(e) => setScope(e.detail.selectedOption.value!)}
            />
          )
        }
        actions={(selected) => (
          <>
            <Button disabled={selected.length !== 1 || selected[0].arn.includes('::aws:policy/')} onClick={() => setGone(selected[0])}>
              {t('Delete')}
            </Button>
            <Button variant="primary" onClick={() => setCreating(true)}>
              {t(text.create)}
            </Button>
          </>
        )}
        columns={[
          {
            id: 'name',
            header: t('Name'),
            cell: (r) => (
              <Link href={`/console${href(r)}`} onFollow={follow}>
                {r.name}
              </Link>
            ),
            sortingField: 'name',
            isRowHeader: true,
          },
          { id: 'path', header: t('Path'), cell: (r) => r.path, sortingField: 'path' },
          ...about,
          { id: 'created', header: kind === 'policies' ? t('Edited') : t('Created'), cell: (r) => time(r.created), sortingField: 'created' },
        ]}
      />
      {creating && (
        <Create
          kind={kind}
          onClose={(id) => {
            setCreating(false);
            if (id) navigate(`/iam/${kind}/${encodeURIComponent(id)}`);
          }}
        />
      )}
      {gone && (
        <Confirm
          title={`${t('Delete')}: ${gone.name}`}
          button={t('Delete')}
          typed={gone.name}
          onConfirm={async () => {
            await deleteEntity(kind, gone.id);
            note({ type: 'success', content: `${t('Deleted')}: ${gone.name}` });
          }}
          onClose={(done) => {
            setGone(null);
            load.reload();
            if (done) setGone(null);
          }}
        >
          <Box>
            {t(
              {
                users: 'The user, its password, access keys, MFA devices and own policies are deleted. What it can do ends at once.',
                groups: 'The users stay; they lose what the group gave them.',
                roles: 'Whoever has switched to the role can do nothing with it from now on.',
                policies: 'It is detached from all users, groups and roles, who lose what it gave them, and deleted with all its versions.',
              }[kind],
            )}
          </Box>
        </Confirm>
      )}
    </>
  );
}

const SCOPES = () => [
  { value: 'All', label: t('All types') },
  { value: 'Local', label: t('Customer managed') },
  { value: 'AWS', label: t('AWS managed') },
];

const EMPTY_POLICY = `{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [],
      "Resource": "*"
    }
  ]
}`;

function Create({ kind, onClose }: { kind: Kind; onClose: (id?: string) => void }) {
  const [name, setName] = useState('');
  const [console, setConsole] = useState(false);
  const [password, setPassword] = useState('');
  const [reset, setReset] = useState(true);
  const [trusted, setTrusted] = useState('account');
  const [other, setOther] = useState('');
  const [description, setDescription] = useState('');
  const [policy, setPolicy] = useState(EMPTY_POLICY);
  const [id, setId] = useState('');
  const account = getState().role?.account ?? getState().identity!.account;
  const legal = /^[\w+=,.@-]+$/.test(name);
  const trust = () =>
    JSON.stringify({
      Version: '2012-10-17',
      Statement: [{ Effect: 'Allow', Principal: trusted === 'service' ? { Service: other } : { AWS: trusted === 'account' ? `arn:aws:iam::${account}:root` : `arn:aws:iam::${other}:root` }, Action: 'sts:AssumeRole' }],
    });
  const make = async () => {
    if (kind === 'users') {
      if (!id) await iam('CreateUser', { UserName: name });
      setId(name); // if the password is refused, the user is there: the next try sets it only
      if (console) await iam('CreateLoginProfile', { UserName: name, Password: password, PasswordResetRequired: reset });
    }
    if (kind === 'groups') await iam('CreateGroup', { GroupName: name });
    if (kind === 'roles') await iam('CreateRole', { RoleName: name, Description: description || undefined, AssumeRolePolicyDocument: trust() });
    if (kind === 'policies') setId((await iam('CreatePolicy', { PolicyName: name, Description: description || undefined, PolicyDocument: policy })).Policy.Arn);
    else setId(name);
  };
  const ready = legal && (kind !== 'users' || !console || password !== '') && (kind !== 'roles' || trusted === 'account' || other !== '') && (kind !== 'policies' || !mistake(policy));
  return (
    <Confirm
      title={t(TEXT[kind].create)}
      button={t(TEXT[kind].create)}
      wide={kind === 'policies'}
      disabled={!ready}
      onConfirm={make}
      onClose={(done) => onClose(done || id ? (kind === 'policies' ? `arn:aws:iam::${account}:policy/${name}` : name) : undefined)}
    >
      <FormField label={t('Name')} errorText={name && !legal ? t('Letters, digits and + = , . @ - _ only.') : ''}>
        <Input value={name} onChange={(e) => setName(e.detail.value)} disabled={!!id} />
      </FormField>
      {kind === 'users' && (
        <SpaceBetween size="m">
          <Checkbox checked={console} onChange={(e) => setConsole(e.detail.checked)}>
            {t('Provide access to this console')}
          </Checkbox>
          {console && (
            <FormField label={t('Console password')}>
              <Input type="password" autoComplete="new-password" value={password} onChange={(e) => setPassword(e.detail.value)} />
            </FormField>
          )}
          {console && (
            <Checkbox checked={reset} onChange={(e) => setReset(e.detail.checked)}>
              {t('The user must set a new password at the next sign-in')}
            </Checkbox>
          )}
        </SpaceBetween>
      )}
      {kind === 'roles' && (
        <SpaceBetween size="m">
          <FormField label={t('Who can switch to it')}>
            <RadioGroup
              value={trusted}
              onChange={(e) => (setTrusted(e.detail.value), setOther(''))}
              items={[
                { value: 'account', label: t('This account: those whose policies allow sts:AssumeRole') },
                { value: 'other', label: t('Another AWS account') },
                { value: 'service', label: t('A service') },
              ]}
            />
          </FormField>
          {trusted !== 'account' && (
            <FormField label={trusted === 'other' ? t('Account ID') : t('Service principal')}>
              <Input value={other} onChange={(e) => setOther(e.detail.value.trim())} placeholder={trusted === 'other' ? '444455556666' : 'workspaces.amazonaws.com'} />
            </FormField>
          )}
        </SpaceBetween>
      )}
      {(kind === 'roles' || kind === 'policies') && (
        <FormField label={t('Description')} description={t('Optional.')}>
          <Input value={description} onChange={(e) => setDescription(e.detail.value)} />
        </FormField>
      )}
      {kind === 'policies' && <PolicyEditor label={t('Policy document')} value={policy} onChange={setPolicy} rows={14} limit={6144} />}
    </Confirm>
  );
}
