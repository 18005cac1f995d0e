import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Container from '@cloudscape-design/components/container';
import Form from '@cloudscape-design/components/form';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import Link from '@cloudscape-design/components/link';
import SegmentedControl from '@cloudscape-design/components/segmented-control';
import SpaceBetween from '@cloudscape-design/components/space-between';
import { useState } from 'react';
import { type Language, t } from './lib/i18n';
import * as session from './lib/session';
import { ErrorBox, useAction } from './lib/ui';
import './sign-in.css';

interface Props {
  language: Language;
  onLanguage: (l: Language) => void;
  notice: string;
}

const kept = () => {
  try {
    return localStorage.getItem('sealdesk.account') ?? '';
  } catch {
    return '';
  }
};

export function SignIn({ language, onLanguage, notice }: Props) {
  const [how, setHow] = useState('user');
  const [account, setAccount] = useState(kept);
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [mfa, setMfa] = useState('');
  const [keyId, setKeyId] = useState('');
  const [secret, setSecret] = useState('');
  const [ticket, setTicket] = useState<string | null>(null);
  const [fresh, setFresh] = useState('');
  const [again, setAgain] = useState('');
  const a = useAction();

  const submit = () =>
    a.run(async () => {
      if (ticket) return session.setNewPassword(ticket, password, fresh);
      if (how === 'key') return session.signInWithKey(keyId.trim(), secret.trim());
      try {
        localStorage.setItem('sealdesk.account', account);
      } catch {
        // It is typed again next time.
      }
      setTicket(await session.signIn(account.trim(), user.trim(), password, mfa.trim()));
      return undefined;
    });
  const differ = again !== '' && again !== fresh;

  return (
    <main className="sign-in">
      <div className="sign-in-box">
        <SpaceBetween size="l">
          <Box textAlign="center" padding={{ top: 'xxl' }}>
            <Box variant="h1" fontSize="display-l">
              Sealdesk
            </Box>
            <Box color="text-body-secondary">{t('Management console')}</Box>
          </Box>
          {notice && <Alert type="info">{t(notice)}</Alert>}
          <form
            onSubmit={(e) => {
              e.preventDefault();
              void submit();
            }}
          >
            <Container header={<Header variant="h2">{ticket ? t('Set a new password') : t('Sign in')}</Header>}>
              <Form
                actions={
                  <Button variant="primary" formAction="submit" loading={a.busy} disabled={!!ticket && (fresh === '' || fresh !== again)} data-testid="sign-in">
                    {ticket ? t('Set password and sign in') : t('Sign in')}
                  </Button>
                }
              >
                <SpaceBetween size="m">
                  {ticket ? (
                    <SpaceBetween size="m">
                      <Box>{t('You must set a password of your own before you go on.')}</Box>
                      <FormField label={t('New password')}>
                        <Input type="password" autoComplete="new-password" value={fresh} onChange={(e) => setFresh(e.detail.value)} autoFocus />
                      </FormField>
                      <FormField label={t('New password again')} errorText={differ ? t('The passwords differ.') : ''}>
                        <Input type="password" autoComplete="new-password" value={again} onChange={(e) => setAgain(e.detail.value)} />
                      </FormField>
                    </SpaceBetween>
                  ) : (
                    <SpaceBetween size="m">
                      <SegmentedControl
                        label={t('How to sign in')}
                        selectedId={how}
                        onChange={(e) => {
                          setHow(e.detail.selectedId);
                          a.clear();
                        }}
                        options={[
                          { id: 'user', text: t('IAM user') },
                          { id: 'key', text: t('Access key') },
                        ]}
                      />
                      {how === 'user' ? (
                        <SpaceBetween size="m">
                          <FormField label={t('Account ID or alias')}>
                            <Input name="account" value={account} onChange={(e) => setAccount(e.detail.value)} autoComplete="organization" placeholder="111122223333" />
                          </FormField>
                          <FormField label={t('IAM user name')}>
                            <Input name="username" value={user} onChange={(e) => setUser(e.detail.value)} autoComplete="username" />
                          </FormField>
                          <FormField label={t('Password')}>
                            <Input name="password" type="password" value={password} onChange={(e) => setPassword(e.detail.value)} autoComplete="current-password" />
                          </FormField>
                          <FormField label={t('MFA code')} description={t('If you have an MFA device.')}>
                            <Input name="mfa" inputMode="numeric" value={mfa} onChange={(e) => setMfa(e.detail.value)} autoComplete="one-time-code" />
                          </FormField>
                        </SpaceBetween>
                      ) : (
                        <SpaceBetween size="m">
                          <Box color="text-body-secondary" fontSize="body-s">
                            {t('For the first administrator, who has no password yet. The secret key signs the request in this browser and is not sent.')}
                          </Box>
                          <FormField label={t('Access key ID')}>
                            <Input name="keyid" value={keyId} onChange={(e) => setKeyId(e.detail.value)} autoComplete={false} placeholder="AKIA..." />
                          </FormField>
                          <FormField label={t('Secret access key')}>
                            <Input name="secret" type="password" value={secret} onChange={(e) => setSecret(e.detail.value)} autoComplete={false} />
                          </FormField>
                        </SpaceBetween>
                      )}
                    </SpaceBetween>
                  )}
                  <ErrorBox error={a.error} title={t('You are not signed in')} />
                </SpaceBetween>
              </Form>
            </Container>
          </form>
          <Box textAlign="center">
            <SpaceBetween size="m" direction="horizontal" alignItems="center">
              <Link href="/portal/">{t('Go to my desktop instead')}</Link>
              <Link
                href="#"
                onFollow={(e) => {
                  e.preventDefault();
                  onLanguage(language === 'ja' ? 'en' : 'ja');
                }}
              >
                {language === 'ja' ? 'English' : '日本語'}
              </Link>
            </SpaceBetween>
          </Box>
        </SpaceBetween>
      </div>
    </main>
  );
}
