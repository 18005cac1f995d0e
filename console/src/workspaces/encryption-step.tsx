import { ListAliasesCommand, ListKeysCommand } from '@aws-sdk/client-kms';
import Alert from '@cloudscape-design/components/alert';
import Autosuggest from '@cloudscape-design/components/autosuggest';
import Box from '@cloudscape-design/components/box';
import Checkbox from '@cloudscape-design/components/checkbox';
import Container from '@cloudscape-design/components/container';
import CopyToClipboard from '@cloudscape-design/components/copy-to-clipboard';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import SpaceBetween from '@cloudscape-design/components/space-between';
import StatusIndicator from '@cloudscape-design/components/status-indicator';
import { useSyncExternalStore } from 'react';
import { kms, pages } from '../lib/clients';
import { t } from '../lib/i18n';
import * as session from '../lib/session';
import { type Loaded, useLoad } from '../lib/ui';
import { type Preflight, preflight } from './preflight';

export const MANAGED = 'alias/aws/workspaces';

export interface Encryption {
  root: boolean;
  user: boolean;
  key: string;
}

interface Choice {
  value: string;
  label: string;
  description?: string;
}

// kms:ListAliases and kms:ListKeys on *: what MISSION's second statement is for.
async function choices(region: string): Promise<Choice[]> {
  const c = await kms(region);
  const [keys, aliases] = await Promise.all([
    pages((Marker) => c.send(new ListKeysCommand({ Marker })), (o) => o.Keys, (o) => (o.Truncated ? o.NextMarker : undefined)),
    pages((Marker) => c.send(new ListAliasesCommand({ Marker })), (o) => o.Aliases, (o) => (o.Truncated ? o.NextMarker : undefined)),
  ]);
  const named = new Map<string, string[]>();
  for (const a of aliases) if (a.TargetKeyId) named.set(a.TargetKeyId, [...(named.get(a.TargetKeyId) ?? []), a.AliasName!]);
  const mine = keys
    .filter((k) => !named.get(k.KeyId!)?.some((n) => n.startsWith('alias/aws/')))
    .map((k) => ({ value: k.KeyArn!, label: named.get(k.KeyId!)?.join(', ') ?? k.KeyId!, description: k.KeyId }));
  return [{ value: MANAGED, label: MANAGED, description: t('AWS managed key; made on first use') }, ...mine];
}

/** The preflight of the key chosen, for the person who is signed in. */
export function usePreflight(region: string, e: Encryption): Loaded<Preflight | null> {
  const { identity, role } = useSyncExternalStore(session.subscribe, session.getState);
  const arn = role?.roleArn ?? identity!.arn;
  const wanted = (e.root || e.user) && e.key !== '';
  return useLoad(() => {
    if (!wanted) return Promise.resolve(null);
    if (e.key === MANAGED) return Promise.resolve({ checks: [{ id: 'grant' as const, state: 'ok' as const, text: 'An AWS managed key already lets WorkSpaces use it; no permission is needed.' }] });
    return preflight(region, e.key, { arn });
  }, [region, wanted, e.key, arn]);
}

export function EncryptionStep({ region, value, onChange, flight }: { region: string; value: Encryption; onChange: (e: Encryption) => void; flight: Loaded<Preflight | null> }) {
  const keys = useLoad(() => choices(region), [region]);
  const on = value.root || value.user;
  const lacking = flight.data?.checks.find((c) => c.statement);
  return (
    <SpaceBetween size="l">
      <Container header={<Header variant="h2" description={t('Each volume has a data key of its own, encrypted under the key you choose.')}>{t('Volumes')}</Header>}>
        <SpaceBetween size="m">
          <Checkbox checked={value.root} onChange={(e) => onChange({ ...value, root: e.detail.checked })} description={t('The operating system and programs.')}>
            {t('Root volume')}
          </Checkbox>
          <Checkbox checked={value.user} onChange={(e) => onChange({ ...value, user: e.detail.checked })} description={t("The user's home.")}>
            {t('User volume')}
          </Checkbox>
          <FormField
            label={t('Encryption key')}
            description={t('A symmetric key of this account, or any by its ARN.')}
            errorText={keys.error ? `${t('The keys cannot be listed (kms:ListKeys, kms:ListAliases); type the ARN.')}` : undefined}
          >
            <Autosuggest
              value={value.key}
              onChange={(e) => onChange({ ...value, key: e.detail.value })}
              options={keys.data ?? []}
              statusType={keys.loading ? 'loading' : 'finished'}
              loadingText={t('Loading')}
              enteredTextLabel={(v) => `${t('Use')} ${v}`}
              disabled={!on}
              placeholder="arn:aws:kms:…:key/…"
              empty={t('No keys')}
              ariaLabel={t('Encryption key')}
            />
          </FormField>
        </SpaceBetween>
      </Container>
      {on && (
        <Container header={<Header variant="h2" description={t('Looked at before you launch, so that a refusal is no surprise.')}>{t('May this key be used?')}</Header>}>
          {flight.loading || !flight.data ? (
            <StatusIndicator type="loading">{t('Looking')}</StatusIndicator>
          ) : (
            <SpaceBetween size="s">
              {flight.data.checks.map((c) => (
                <div key={c.id} data-testid={`check-${c.id}`} data-state={c.state}>
                  <StatusIndicator type={c.state === 'ok' ? 'success' : c.state === 'no' ? 'error' : 'warning'}>{t(c.text)}</StatusIndicator>
                </div>
              ))}
              {lacking && (
                <Alert type="warning" header={t('Add this to your IAM policy')}>
                  <SpaceBetween size="xs">
                    <Box>{t('An IAM administrator can attach it to your user or role; the key policy must let IAM policies decide, or name you as a key user.')}</Box>
                    <Box variant="code">
                      <pre style={{ whiteSpace: 'pre-wrap', overflowWrap: 'anywhere', margin: 0 }} data-testid="missing-statement">
                        {lacking.statement}
                      </pre>
                    </Box>
                    <CopyToClipboard textToCopy={lacking.statement!} copyButtonText={t('Copy')} copySuccessText={t('Copied')} copyErrorText={t('Not copied')} />
                  </SpaceBetween>
                </Alert>
              )}
            </SpaceBetween>
          )}
        </Container>
      )}
    </SpaceBetween>
  );
}
