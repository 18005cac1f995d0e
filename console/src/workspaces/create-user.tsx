import { ResetUserPasswordCommand } from '@aws-sdk/client-directory-service';
import Box from '@cloudscape-design/components/box';
import FormField from '@cloudscape-design/components/form-field';
import Input from '@cloudscape-design/components/input';
import { useState } from 'react';
import { ds } from '../lib/clients';
import { t } from '../lib/i18n';
import { dsData } from '../lib/raw';
import { Confirm, useNote } from '../lib/ui';

const setPassword = async (region: string, DirectoryId: string, UserName: string, NewPassword: string) => (await ds(region)).send(new ResetUserPasswordCommand({ DirectoryId, UserName, NewPassword }));

/** Creates a user of a directory and gives it its first password. */
export function CreateUser({ region, directoryId, onClose }: { region: string; directoryId: string; onClose: (name: string | null) => void }) {
  const [name, setName] = useState('');
  const [given, setGiven] = useState('');
  const [surname, setSurname] = useState('');
  const [email, setEmail] = useState('');
  const [password, set] = useState('');
  const [made, setMade] = useState(false);
  const note = useNote();
  const run = async () => {
    if (!made) {
      await dsData.createUser(region, directoryId, { SAMAccountName: name.trim(), GivenName: given.trim() || undefined, Surname: surname.trim() || undefined, EmailAddress: email.trim() || undefined });
      setMade(true); // a refused password is tried again without making the user twice
    }
    await setPassword(region, directoryId, name.trim(), password);
    note({ type: 'success', content: `${t('User created')}: ${name.trim()}` });
  };
  return (
    <Confirm title={t('Create user')} button={t('Create user')} disabled={!name.trim() || !password} onConfirm={run} onClose={(done) => onClose(done || made ? name.trim() : null)}>
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
    </Confirm>
  );
}

export function ResetPassword({ region, directoryId, name, onClose }: { region: string; directoryId: string; name: string; onClose: (done: boolean) => void }) {
  const [password, set] = useState('');
  return (
    <Confirm title={`${t('Reset password')}: ${name}`} button={t('Reset password')} disabled={!password} onConfirm={() => setPassword(region, directoryId, name, password)} onClose={onClose}>
      <Box>{t('A user who was disabled is enabled by it.')}</Box>
      <FormField label={t('New password')}>
        <Input type="password" value={password} onChange={(e) => set(e.detail.value)} autoComplete="new-password" />
      </FormField>
    </Confirm>
  );
}
