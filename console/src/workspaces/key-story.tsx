import { ListGrantsCommand } from '@aws-sdk/client-kms';
import Badge from '@cloudscape-design/components/badge';
import Box from '@cloudscape-design/components/box';
import Container from '@cloudscape-design/components/container';
import ExpandableSection from '@cloudscape-design/components/expandable-section';
import Header from '@cloudscape-design/components/header';
import SpaceBetween from '@cloudscape-design/components/space-between';
import StatusIndicator from '@cloudscape-design/components/status-indicator';
import Steps from '@cloudscape-design/components/steps';
import Table from '@cloudscape-design/components/table';
import { kms, pages } from '../lib/clients';
import { t } from '../lib/i18n';
import type { Desktop } from '../lib/raw';
import { ErrorBox, time, useLoad } from '../lib/ui';
import { CONTEXT, meaning, recordsOf, story, VOLUME } from './story';

/** Which grants, which data keys, every use and refusal: the key's part in one desktop's life. */
export function KeyStory({ region, workspaceId, keyArn, machine, state }: { region: string; workspaceId: string; keyArn: string; machine?: Desktop; state: string }) {
  const context = machine?.SidDirectoryId ?? '';
  const volumes = [machine?.RootVolumeId, machine?.UserVolumeId].filter((v): v is string => !!v);
  const names: Record<string, string> = { [machine?.RootVolumeId ?? '-']: t('root volume'), [machine?.UserVolumeId ?? '-']: t('user volume') };
  const name = (id: string) => (names[id] ? `${names[id]} ${id}` : id);
  const load = useLoad(async () => story(await recordsOf(region, keyArn), context, volumes, workspaceId), [region, keyArn, context, volumes.join(), state], 15_000);
  const grants = useLoad(async () => {
    const c = await kms(region);
    const all = await pages((Marker) => c.send(new ListGrantsCommand({ KeyId: keyArn, Marker })), (o) => o.Grants, (o) => (o.Truncated ? o.NextMarker : undefined));
    return all.filter((g) => {
      const s = g.Constraints?.EncryptionContextSubset ?? g.Constraints?.EncryptionContextEquals ?? {};
      return s[CONTEXT] === context && (!s[VOLUME] || volumes.includes(s[VOLUME]));
    });
  }, [region, keyArn, context, volumes.join(), state]);

  return (
    <Container header={<Header variant="h2" description={t('Every grant, data key, use and refusal of the key for this desktop, as CloudTrail recorded it.')}>{t('Key story')}</Header>}>
      <SpaceBetween size="l">
        <Table
          variant="embedded"
          header={<Header variant="h3" counter={grants.data ? `(${grants.data.length})` : undefined}>{t('Grants now')}</Header>}
          loading={grants.loading && !grants.data}
          loadingText={t('Loading')}
          items={grants.data ?? []}
          wrapLines
          ariaLabels={{ tableLabel: t('Grants now') }}
          empty={grants.error ? <ErrorBox error={grants.error} /> : <Box color="text-body-secondary">{t('No grants: the key cannot be used for this desktop.')}</Box>}
          columnDefinitions={[
            { id: 'who', header: t('Grantee'), isRowHeader: true, cell: (g) => g.GranteePrincipal },
            { id: 'what', header: t('Operations'), cell: (g) => g.Operations?.join(', ') },
            { id: 'for', header: t('Only for'), cell: (g) => name((g.Constraints?.EncryptionContextSubset ?? {})[VOLUME] ?? t('this user in this directory')) },
            { id: 'since', header: t('Since'), cell: (g) => time(g.CreationDate) },
          ]}
        />
        <div>
          <Box variant="h3">{t('Timeline')}</Box>
          <ErrorBox error={load.error} title={t('CloudTrail was not read')} />
          {load.data?.length === 0 && <Box color="text-body-secondary">{t('Nothing is recorded yet.')}</Box>}
          {load.loading && !load.data && <StatusIndicator type="loading">{t('Loading')}</StatusIndicator>}
          <Steps
            ariaLabel={t('Timeline')}
            steps={(load.data ?? []).map((c) => ({
              status: c.error ? ('error' as const) : ('success' as const),
              statusIconAriaLabel: c.error ? t('Refused') : t('Allowed'),
              header: (
                <>
                  <b>{c.name}</b> {time(c.time)} <Badge color={c.error ? 'red' : 'grey'}>{c.who}</Badge>
                </>
              ),
              details: (
                <Box>
                  {c.error ? <Box color="text-status-error">{c.error}</Box> : <Box>{t(meaning(c))}{c.volume && ` (${name(c.volume)})`}</Box>}
                  <ExpandableSection headerText={t('Encryption context and record')} variant="footer">
                    <Box variant="code">
                      <pre style={{ whiteSpace: 'pre-wrap', overflowWrap: 'anywhere', margin: 0 }}>{JSON.stringify(c.record, null, 2)}</pre>
                    </Box>
                  </ExpandableSection>
                </Box>
              ),
            }))}
          />
        </div>
      </SpaceBetween>
    </Container>
  );
}
