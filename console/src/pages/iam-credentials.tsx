// A user's console password, MFA devices and access keys.

import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Checkbox from '@cloudscape-design/components/checkbox';
import Container from '@cloudscape-design/components/container';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import Modal from '@cloudscape-design/components/modal';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useEffect, useState } from 'react';
import { iam, iamAll } from '../lib/iam';
import { t } from '../lib/i18n';
import { Confirm, Copy, Empty, ErrorBox, List, Status, time, useAction, useLoad, useNote } from '../lib/ui';

export const Credentials = ({ user }: { user: string }) => (
  <SpaceBetween size="l">
    <Password user={user} />
    <Devices user={user} />
    <AccessKeys user={user} />
  </SpaceBetween>
);

function Password({ user }: { user: string }) {
  const note = useNote();
  const load = useLoad(
    () =>
      iam('GetLoginProfile', { UserName: user }).then(
        (o) => ({ profile: o.LoginProfile as { CreateDate?: Date; PasswordResetRequired?: boolean } | null }),
        (e: Error) => {
          if (/NoSuchEntity/.test(e.name)) return { profile: null };
          throw e;
        },
      ),
    [user],
  );
  const [edit, setEdit] = useState<{ password: string; reset: boolean } | null>(null);
  const [gone, setGone] = useState(false);
  const has = !!load.data?.profile;
  return (
    <Container
      header={
        <Header
          variant="h2"
          actions={
            <SpaceBetween direction="horizontal" size="xs">
              {has && <Button onClick={() => setGone(true)}>{t('Remove console access')}</Button>}
              <Button disabled={!load.data} onClick={() => setEdit({ password: '', reset: true })}>
                {has ? t('Set a new password') : t('Enable console access')}
              </Button>
            </SpaceBetween>
          }
        >
          {t('Console sign-in')}
        </Header>
      }
    >
      <ErrorBox error={load.error} />
      <KeyValuePairs
        columns={3}
        items={[
          { label: t('Console password'), value: load.data ? <Status value={has ? 'Enabled' : 'Disabled'} label={has ? t('Set') : t('Not set: no console access')} /> : '-' },
          { label: t('Created'), value: time(load.data?.profile?.CreateDate) },
          { label: t('Must be changed at the next sign-in'), value: load.data?.profile?.PasswordResetRequired ? t('Yes') : t('No') },
        ]}
      />
      {edit && (
        <Confirm
          title={t('Console password')}
          button={t('Save')}
          disabled={!edit.password}
          onConfirm={async () => {
            await iam(has ? 'UpdateLoginProfile' : 'CreateLoginProfile', { UserName: user, Password: edit.password, PasswordResetRequired: edit.reset });
            note({ type: 'success', content: t('The password is set.') });
          }}
          onClose={(done) => {
            setEdit(null);
            if (done) load.reload();
          }}
        >
          <FormField label={t('New password')} description={t('It must satisfy the account’s password policy.')}>
            <Input type="password" autoComplete="new-password" value={edit.password} onChange={(e) => setEdit({ ...edit, password: e.detail.value })} />
          </FormField>
          <Checkbox checked={edit.reset} onChange={(e) => setEdit({ ...edit, reset: e.detail.checked })}>
            {t('The user must set a new password at the next sign-in')}
          </Checkbox>
        </Confirm>
      )}
      {gone && (
        <Confirm
          title={t('Remove console access')}
          button={t('Remove')}
          typed={user}
          onConfirm={() => iam('DeleteLoginProfile', { UserName: user })}
          onClose={(done) => {
            setGone(false);
            if (done) load.reload();
          }}
        >
          <Box>{t('The user can no longer sign in here. Access keys keep working.')}</Box>
        </Confirm>
      )}
    </Container>
  );
}

function Devices({ user }: { user: string }) {
  const load = useLoad(() => iamAll('ListMFADevices', 'MFADevices', { UserName: user }), [user]);
  const [adding, setAdding] = useState(false);
  const [gone, setGone] = useState<string | null>(null);
  return (
    <>
      <List
        title={t('Multi-factor authentication (MFA)')}
        variant="container"
        filter={false}
        load={load}
        trackBy={(d) => d.SerialNumber}
        selection="single"
        empty={<Empty title={t('No MFA device')} text={t('Assign an authenticator app, so that a stolen password is not enough.')} />}
        actions={(selected) => (
          <>
            <Button disabled={selected.length !== 1} onClick={() => setGone(selected[0].SerialNumber)}>
              {t('Remove')}
            </Button>
            <Button onClick={() => setAdding(true)}>{t('Assign MFA device')}</Button>
          </>
        )}
        columns={[
          { id: 'serial', header: t('Identifier'), cell: (d) => <Copy text={d.SerialNumber} />, isRowHeader: true },
          { id: 'enabled', header: t('Assigned'), cell: (d) => time(d.EnableDate) },
        ]}
      />
      {adding && (
        <AssignDevice
          user={user}
          onClose={() => {
            setAdding(false);
            load.reload();
          }}
        />
      )}
      {gone && (
        <Confirm
          title={t('Remove MFA device')}
          button={t('Remove')}
          typed={user}
          onConfirm={async () => {
            await iam('DeactivateMFADevice', { UserName: user, SerialNumber: gone });
            await iam('DeleteVirtualMFADevice', { SerialNumber: gone });
          }}
          onClose={() => {
            setGone(null);
            load.reload();
          }}
        >
          <Box>{t('From now on a password alone is enough to sign in as this user.')}</Box>
        </Confirm>
      )}
    </>
  );
}

function AssignDevice({ user, onClose }: { user: string; onClose: () => void }) {
  const [name, setName] = useState(user);
  const [made, setMade] = useState<{ serial: string; seed: string; qr: string } | null>(null);
  const [one, setOne] = useState('');
  const [two, setTwo] = useState('');
  const note = useNote();
  const text = (b: Uint8Array) => new TextDecoder().decode(b);
  const make = async () => {
    const { VirtualMFADevice: d } = await iam('CreateVirtualMFADevice', { VirtualMFADeviceName: name });
    setMade({ serial: d.SerialNumber, seed: text(d.Base32StringSeed), qr: d.QRCodePNG?.length ? URL.createObjectURL(new Blob([d.QRCodePNG], { type: 'image/png' })) : '' });
    throw Object.assign(new Error(), { name: 'stay' });
  };
  useEffect(() => () => void (made?.qr && URL.revokeObjectURL(made.qr)), [made]);
  const enable = async () => {
    await iam('EnableMFADevice', { UserName: user, SerialNumber: made!.serial, AuthenticationCode1: one, AuthenticationCode2: two });
    note({ type: 'success', content: t('The MFA device is assigned.') });
  };
  const a = useAction();
  if (!made)
    return (
      <Modal
        visible
        header={t('Assign MFA device')}
        closeAriaLabel={t('Close')}
        onDismiss={onClose}
        footer={
          <Box float="right">
            <SpaceBetween direction="horizontal" size="xs">
              <Button variant="link" onClick={onClose}>
                {t('Cancel')}
              </Button>
              <Button variant="primary" loading={a.busy} disabled={!/^[\w+=,.@-]+$/.test(name)} onClick={() => a.run(() => make().catch((e) => (e.name === 'stay' ? undefined : Promise.reject(e))))}>
                {t('Next')}
              </Button>
            </SpaceBetween>
          </Box>
        }
      >
        <SpaceBetween size="m">
          <FormField label={t('Device name')}>
            <Input value={name} onChange={(e) => setName(e.detail.value)} />
          </FormField>
          <ErrorBox error={a.error} />
        </SpaceBetween>
      </Modal>
    );
  return (
    <Confirm
      title={t('Assign MFA device')}
      button={t('Add MFA')}
      disabled={!/^\d{6}$/.test(one) || !/^\d{6}$/.test(two)}
      onConfirm={enable}
      onClose={(done) => {
        if (!done) void iam('DeleteVirtualMFADevice', { SerialNumber: made.serial }).catch(() => {});
        onClose();
      }}
    >
      <Box>{t('Scan the code with an authenticator app, or type the secret key into it; then enter two codes in a row.')}</Box>
      {made.qr && <img src={made.qr} alt={t('QR code of the secret key')} width={200} height={200} />}
      <FormField label={t('Secret key')}>
        <Copy text={made.seed} />
      </FormField>
      <FormField label={t('MFA code 1')}>
        <Input value={one} inputMode="numeric" autoComplete="one-time-code" onChange={(e) => setOne(e.detail.value.trim())} />
      </FormField>
      <FormField label={t('MFA code 2')}>
        <Input value={two} inputMode="numeric" autoComplete="one-time-code" onChange={(e) => setTwo(e.detail.value.trim())} />
      </FormField>
    </Confirm>
  );
}

function AccessKeys({ user }: { user: string }) {
  const note = useNote();
  const a = useAction();
  const load = useLoad(
    async () =>
      Promise.all(
        (await iamAll('ListAccessKeys', 'AccessKeyMetadata', { UserName: user })).map(async (k) => ({
          ...k,
          used: (await iam('GetAccessKeyLastUsed', { AccessKeyId: k.AccessKeyId }).catch(() => null))?.AccessKeyLastUsed,
        })),
      ),
    [user],
  );
  const [fresh, setFresh] = useState<{ id: string; secret: string } | null>(null);
  const [gone, setGone] = useState<string | null>(null);
  const make = () =>
    a.run(async () => {
      const { AccessKey: k } = await iam('CreateAccessKey', { UserName: user });
      setFresh({ id: k.AccessKeyId, secret: k.SecretAccessKey });
      load.reload();
    });
  const toggle = (k: { AccessKeyId: string; Status: string }) =>
    a.run(() => iam('UpdateAccessKey', { UserName: user, AccessKeyId: k.AccessKeyId, Status: k.Status === 'Active' ? 'Inactive' : 'Active' })).then((ok) => {
      if (ok) note({ type: 'success', content: t('The access key is changed.') });
      load.reload();
    });
  return (
    <>
      <ErrorBox error={a.error} />
      <List
        title={t('Access keys')}
        description={t('For programs. A person can have two at once, to change from one to the other.')}
        variant="container"
        filter={false}
        load={load}
        trackBy={(k) => k.AccessKeyId}
        selection="single"
        empty={<Empty title={t('No access keys')} text={t('Create one for a program; people sign in with a password.')} />}
        actions={(selected) => (
          <>
            <Button disabled={selected.length !== 1} onClick={() => toggle(selected[0])}>
              {selected[0]?.Status === 'Inactive' ? t('Activate') : t('Deactivate')}
            </Button>
            <Button disabled={selected.length !== 1 || selected[0].Status === 'Active'} onClick={() => setGone(selected[0].AccessKeyId)}>
              {t('Delete')}
            </Button>
            <Button loading={a.busy} onClick={make}>
              {t('Create access key')}
            </Button>
          </>
        )}
        columns={[
          { id: 'id', header: t('Access key ID'), cell: (k) => k.AccessKeyId, isRowHeader: true },
          { id: 'status', header: t('Status'), cell: (k) => <Status value={k.Status === 'Active' ? 'Active' : 'Disabled'} label={t(k.Status)} /> },
          { id: 'created', header: t('Created'), cell: (k) => time(k.CreateDate) },
          { id: 'used', header: t('Last used'), cell: (k) => (k.used?.LastUsedDate ? `${time(k.used.LastUsedDate)}, ${k.used.ServiceName}` : t('Never')) },
        ]}
      />
      {fresh && (
        <Modal
          visible
          header={t('Access key created')}
          closeAriaLabel={t('Close')}
          onDismiss={() => setFresh(null)}
          footer={
            <Box float="right">
              <Button variant="primary" onClick={() => setFresh(null)}>
                {t('Done')}
              </Button>
            </Box>
          }
        >
          <SpaceBetween size="m">
            <Alert type="warning">{t('This is the only time that the secret access key is shown. Keep it now.')}</Alert>
            <FormField label={t('Access key ID')}>
              <Copy text={fresh.id} />
            </FormField>
            <FormField label={t('Secret access key')}>
              <Copy text={fresh.secret} />
            </FormField>
          </SpaceBetween>
        </Modal>
      )}
      {gone && (
        <Confirm
          title={t('Delete access key')}
          button={t('Delete')}
          typed={gone}
          onConfirm={() => iam('DeleteAccessKey', { UserName: user, AccessKeyId: gone })}
          onClose={(done) => {
            setGone(null);
            if (done) load.reload();
          }}
        >
          <Box>{t('Programs that use it are refused for good.')}</Box>
        </Confirm>
      )}
    </>
  );
}
