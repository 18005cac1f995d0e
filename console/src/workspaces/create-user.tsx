import { ResetUserPasswordCommand } from '@aws-sdk/client-directory-service';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import FormField from '@cloudscape-design/components/form-field';
import Input from '@cloudscape-design/components/input';
import Modal from '@cloudscape-design/components/modal';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useState } from 'react';
import { ds } from '../lib/clients';
import { t } from '../lib/i18n';
import { dsData } from '../lib/raw';
import { ErrorBox, useAction, useNote } from '../lib/ui';

const setPassword = async (region: string, DirectoryId: string, UserName: string, NewPassword: string) => (await ds(region)).send(new ResetUserPasswordCommand({ DirectoryId, UserName, NewPassword }));

/** Creates a user of a directory and gives it its first password. */
export function CreateUser({ region, directoryId, onClose }: { region: string; directoryId: string; onClose: (name: string | null) => void }) {
  const [name, setName] = useState('');
  const [given, setGiven] = useState('');
  const [surname, setSurname] = useState('');
  const [email, setEmail] = useState('');
  const [password, set] = useState('');
  const [made, setMade] = useState(false);
  const a = useAction();
  const note = useNote();
  const run = () =>
    a.run(async () => {
      if (!made) {
        await dsData.createUser(region, directoryId, { SAMAccountName: name.trim(), GivenName: given.trim() || undefined, Surname: surname.trim() || undefined, EmailAddress: email.trim() || undefined });
        setMade(true); // a refused password is tried again without making the user twice
      }
      await setPassword(region, directoryId, name.trim(), password);
      note({ type: 'success', content: `${t('User created')}: ${name.trim()}` });
      onClose(name.trim());
    });
  return (
    <Modal
      visible
      header={t('Create user')}
      closeAriaLabel={t('Close')}
      onDismiss={() => onClose(made ? name : null)}
      footer={
        <Box float="right">
          <SpaceBetween direction="horizontal" size="xs">
            <Button variant="link" onClick={() => onClose(made ? name : null)}>
              {t('Cancel')}
            </Button>
            <Button variant="primary" loading={a.busy} disabled={!name.trim() || !password} onClick={() => void run()}>
              {t('Create user')}
            </Button>
          </SpaceBetween>
        </Box>
      }
    >
      <SpaceBetween size="m">
        <FormField label={t('User name')} description={t('Up to 20 characters; it cannot be changed.')}>
          <Input value={name} onChange={(e) => setName(e.detail.value)} disabled={made} autoComplete={false} />
        </FormField>
        <FormField label={t('First name')}>
          <Input value={given} onChange={(e) => setGiven(e.detail.value)} disabled={made} autoComplete={false} />
        </FormField>
        <FormField label={t('Last name')}>
          <Input value={surname} onChange={(e) => setSurname(e.detail.value)} disabled={made} autoComplete={false} />
        </FormField>
        <FormField label={t('Email')}>
          <Input value={email} onChange={(e) => setEmail(e.detail.value)} disabled={made} autoComplete={false} />
        </FormField>
        <FormField label={t('Password')} description={t('At least 8 characters with three of: lower case, upper case, digits, others.')}>
          <Input type="password" value={password} onChange={(e) => set(e.detail.value)} autoComplete="new-password" />
        </FormField>
        <ErrorBox error={a.error} />
      </SpaceBetween>
    </Modal>
  );
}

export function ResetPassword({ region, directoryId, name, onClose }: { region: string; directoryId: string; name: string; onClose: (done: boolean) => void }) {
  const [password, set] = useState('');
  const a = useAction();
  return (
    <Modal
      visible
      header={`${t('Reset password')}: ${name}`}
      closeAriaLabel={t('Close')}
      onDismiss={() => onClose(false)}
      footer={
        <Box float="right">
          <SpaceBetween direction="horizontal" size="xs">
            <Button variant="link" onClick={() => onClose(false)}>
              {t('Cancel')}
            </Button>
            <Button variant="primary" loading={a.busy} disabled={!password} onClick={() => a.run(() => setPassword(region, directoryId, name, password)).then((ok) => ok && onClose(true))}>
              {t('Reset password')}
            </Button>
          </SpaceBetween>
        </Box>
      }
    >
      <SpaceBetween size="m">
        <Box>{t('A user who was disabled is enabled by it.')}</Box>
        <FormField label={t('New password')}>
          <Input type="password" value={password} onChange={(e) => set(e.detail.value)} autoComplete="new-password" />
        </FormField>
        <ErrorBox error={a.error} />
      </SpaceBetween>
    </Modal>
  );
}
