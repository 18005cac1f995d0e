// Event history: one attribute at a time, as in CloudTrail, newest first; each record in full; and
// how far the delivered log can be trusted.

import type { Event, LookupAttributeKey } from '@aws-sdk/client-cloudtrail';
import Box from '@cloudscape-design/components/box';
import BreadcrumbGroup from '@cloudscape-design/components/breadcrumb-group';
import Button from '@cloudscape-design/components/button';
import Container from '@cloudscape-design/components/container';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import Link from '@cloudscape-design/components/link';
import Select from '@cloudscape-design/components/select';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Spinner from '@cloudscape-design/components/spinner';
import StatusIndicator from '@cloudscape-design/components/status-indicator';
import Table from '@cloudscape-design/components/table';
import { useEffect, useRef, useState } from 'react';
import { useSearchParams } from 'react-router';
import * as client from '../lib/clients';
import { t } from '../lib/i18n';
import { Copy, Empty, ErrorBox, List, Status, time, useFollow, useLoad, useRegion } from '../lib/ui';

const ATTRIBUTES: [LookupAttributeKey, string][] = [
  ['ReadOnly', 'Read-only'],
  ['EventName', 'Event name'],
  ['Username', 'User name'],
  ['EventSource', 'Event source'],
  ['ResourceName', 'Resource name'],
  ['ResourceType', 'Resource type'],
  ['EventId', 'Event ID'],
  ['AccessKeyId', 'AWS access key'],
];
const SPANS: [string, string, number][] = [
  ['all', 'Last 90 days', 0],
  ['hour', 'Last hour', 1],
  ['day', 'Last 24 hours', 24],
  ['week', 'Last 7 days', 168],
];

const api = (region: string) => Promise.all([client.cloudtrail(region), import('@aws-sdk/client-cloudtrail')]);
const failed = (e: Event) => (JSON.parse(e.CloudTrailEvent ?? '{}') as { errorCode?: string }).errorCode;

export default function Events() {
  const [search] = useSearchParams();
  const event = search.get('event');
  return event ? <Record id={event} /> : <History />;
}

function History() {
  const region = useRegion();
  const follow = useFollow();
  const [search, setSearch] = useSearchParams();
  const attribute = (search.get('by') as LookupAttributeKey | null) ?? 'ReadOnly';
  const value = search.get('value') ?? (search.has('by') ? '' : 'false');
  const span = search.get('span') ?? 'all';
  const [typed, setTyped] = useState(value);
  useEffect(() => setTyped(value), [value, attribute]);
  const [state, set] = useState<{ events: Event[]; next?: string; loading: boolean; error: unknown }>({ events: [], loading: true, error: null });
  const turn = useRef(0);
  const fetchPage = async (from?: string, before: Event[] = []) => {
    const mine = ++turn.current;
    set((s) => ({ ...s, events: before, loading: true, error: null }));
    try {
      const [c, { LookupEventsCommand }] = await api(region);
      const hours = SPANS.find(([id]) => id === span)?.[2] ?? 0;
      const out = await c.send(
        new LookupEventsCommand({
          LookupAttributes: value ? [{ AttributeKey: attribute, AttributeValue: value }] : undefined,
          StartTime: hours ? new Date(Date.now() - hours * 3_600_000) : undefined,
          NextToken: from,
          MaxResults: 50,
        }),
      );
      if (mine === turn.current) set({ events: [...before, ...(out.Events ?? [])], next: out.NextToken, loading: false, error: null });
    } catch (error) {
      if (mine === turn.current) set((s) => ({ ...s, loading: false, error }));
    }
  };
  useEffect(() => {
    void fetchPage();
  }, [region, attribute, value, span]);
  const go = (next: Partial<Record<'by' | 'value' | 'span', string>>) => setSearch({ by: attribute, value, span, ...next }, { replace: true });
  const options = ATTRIBUTES.map(([v, label]) => ({ value: v, label: t(label) }));
  const spans = SPANS.map(([v, label]) => ({ value: v, label: t(label) }));
  const yesNo = [
    { value: 'false', label: 'false' },
    { value: 'true', label: 'true' },
  ];
  return (
    <SpaceBetween size="l">
      <ErrorBox error={state.error} title={`${t('Event history')}: ${t('not loaded')}`} />
      <Table
        variant="container"
        wrapLines
        items={state.events}
        trackBy="EventId"
        loading={state.loading && state.events.length === 0}
        loadingText={t('Loading')}
        ariaLabels={{ tableLabel: t('Event history') }}
        empty={<Empty title={t('No matching events')} text={t('Every call to an API is recorded here within seconds. Look for another attribute, or a longer time.')} />}
        header={
          <Header
            variant="awsui-h1-sticky"
            counter={`(${state.events.length}${state.next ? '+' : ''})`}
            description={t('Who did what, when, and with which key, in this Region, in the last 90 days.')}
            actions={<Button iconName="refresh" ariaLabel={`${t('Refresh')} ${t('Event history')}`} onClick={() => fetchPage()} />}
          >
            {t('Event history')}
          </Header>
        }
        filter={
          <form
            onSubmit={(e) => {
              e.preventDefault();
              go({ value: typed.trim() });
            }}
          >
            <SpaceBetween direction="horizontal" size="xs">
              <Select
                ariaLabel={t('Lookup attribute')}
                selectedOption={options.find((o) => o.value === attribute)!}
                options={options}
                onChange={(e) => go({ by: e.detail.selectedOption.value!, value: e.detail.selectedOption.value === 'ReadOnly' ? 'false' : '' })}
              />
              {attribute === 'ReadOnly' ? (
                <Select ariaLabel={t('Value')} selectedOption={yesNo.find((o) => o.value === value) ?? yesNo[0]} options={yesNo} onChange={(e) => go({ value: e.detail.selectedOption.value! })} />
              ) : (
                <Input type="search" ariaLabel={t('Value')} placeholder={t('Enter the exact value')} value={typed} onChange={(e) => (setTyped(e.detail.value), e.detail.value === '' && go({ value: '' }))} />
              )}
              <Select ariaLabel={t('Time')} selectedOption={spans.find((o) => o.value === span)!} options={spans} onChange={(e) => go({ span: e.detail.selectedOption.value! })} />
            </SpaceBetween>
          </form>
        }
        footer={
          state.next && (
            <Box textAlign="center">
              <Button loading={state.loading} onClick={() => fetchPage(state.next, state.events)}>
                {t('Load more')}
              </Button>
            </Box>
          )
        }
        columnDefinitions={[
          {
            id: 'name',
            header: t('Event name'),
            cell: (e) => (
              <Link href={`/console/cloudtrail?event=${e.EventId}`} onFollow={follow}>
                {e.EventName}
              </Link>
            ),
            isRowHeader: true,
          },
          { id: 'time', header: t('Event time'), cell: (e) => time(e.EventTime), minWidth: 130 },
          { id: 'user', header: t('User name'), cell: (e) => e.Username ?? '-' },
          { id: 'source', header: t('Event source'), cell: (e) => e.EventSource },
          { id: 'resource', header: t('Resource name'), cell: (e) => e.Resources?.map((r) => r.ResourceName?.split(/[/:]/).pop()).join(', ') || '-', minWidth: 160 },
          { id: 'outcome', header: t('Outcome'), cell: (e) => (failed(e) ? <StatusIndicator type="error">{failed(e)}</StatusIndicator> : <StatusIndicator>{t('Done')}</StatusIndicator>), minWidth: 120 },
        ]}
      />
      <Integrity />
    </SpaceBetween>
  );
}

/** The trails: is the log delivered, and are its digests signed and up to date? */
function Integrity() {
  const region = useRegion();
  const load = useLoad(async () => {
    const [c, { DescribeTrailsCommand, GetTrailStatusCommand }] = await api(region);
    const { trailList = [] } = await c.send(new DescribeTrailsCommand({}));
    return Promise.all(trailList.map(async (trail) => ({ trail, status: await c.send(new GetTrailStatusCommand({ Name: trail.TrailARN })) })));
  }, [region]);
  return (
    <List
      title={t('Integrity')}
      description={t('Each record is chained to the one before and written before the call is answered. A trail delivers the log with digests that are signed every hour: aws cloudtrail validate-logs checks them, sealdesk audit verify checks the chain.')}
      variant="container"
      filter={false}
      load={load}
      trackBy={(x) => x.trail.TrailARN!}
      empty={<Empty title={t('No trails')} text={t('Create one with aws cloudtrail create-trail --enable-log-file-validation, then start-logging, to have the log delivered with signed digests.')} />}
      columns={[
        { id: 'name', header: t('Trail'), cell: (x) => x.trail.Name, isRowHeader: true },
        { id: 'logging', header: t('Logging'), cell: (x) => <Status value={x.status.IsLogging ? 'Enabled' : 'Disabled'} label={x.status.IsLogging ? t('On') : t('Off')} /> },
        {
          id: 'validation',
          header: t('Log file validation'),
          cell: (x) =>
            !x.trail.LogFileValidationEnabled ? (
              <StatusIndicator type="warning">{t('Off: changes to the delivered log would not show')}</StatusIndicator>
            ) : x.status.LatestDigestDeliveryError ? (
              <StatusIndicator type="error">{x.status.LatestDigestDeliveryError}</StatusIndicator>
            ) : (
              <StatusIndicator>{t('Signed digests')}</StatusIndicator>
            ),
        },
        { id: 'digest', header: t('Latest digest'), cell: (x) => time(x.status.LatestDigestDeliveryTime) },
        { id: 'delivery', header: t('Latest delivery'), cell: (x) => (x.status.LatestDeliveryError ? <StatusIndicator type="error">{x.status.LatestDeliveryError}</StatusIndicator> : time(x.status.LatestDeliveryTime)) },
      ]}
    />
  );
}

function Record({ id }: { id: string }) {
  const region = useRegion();
  const follow = useFollow();
  const load = useLoad(async () => {
    const [c, { LookupEventsCommand }] = await api(region);
    const out = await c.send(new LookupEventsCommand({ LookupAttributes: [{ AttributeKey: 'EventId', AttributeValue: id }] }));
    return out.Events?.[0] ?? null;
  }, [region, id]);
  const e = load.data;
  // biome-ignore: a record has the members that its service gives it
  const r: any = e ? JSON.parse(e.CloudTrailEvent!) : {};
  const context = r.requestParameters?.encryptionContext as Record<string, string> | undefined;
  return (
    <SpaceBetween size="l">
      <BreadcrumbGroup
        ariaLabel={t('Breadcrumbs')}
        onFollow={follow}
        items={[
          { text: 'CloudTrail', href: '/console/cloudtrail' },
          { text: t('Event history'), href: '/console/cloudtrail' },
          { text: e?.EventName ?? id, href: '' },
        ]}
      />
      <ErrorBox error={load.error} />
      {load.loading && !e && <Spinner size="large" />}
      {e === null && <Empty title={t('No such event in this Region')} text={t('Look at the region selector.')} />}
      {e && (
        <>
          <Header variant="h1">{e.EventName}</Header>
          <Container header={<Header variant="h2">{t('Details')}</Header>}>
            <KeyValuePairs
              columns={3}
              items={[
                { label: t('Event time'), value: time(e.EventTime) },
                { label: t('User name'), value: e.Username ?? '-' },
                { label: t('Event source'), value: e.EventSource },
                { label: t('Event ID'), value: <Copy text={e.EventId} /> },
                { label: t('Request ID'), value: <Copy text={r.requestID} /> },
                { label: t('Source IP address'), value: r.sourceIPAddress ?? '-' },
                { label: t('AWS access key'), value: e.AccessKeyId || '-' },
                { label: t('Read-only'), value: e.ReadOnly },
                { label: t('Error code'), value: r.errorCode ? <StatusIndicator type="error">{r.errorCode}</StatusIndicator> : '-' },
                ...(r.errorMessage ? [{ label: t('Error message'), value: r.errorMessage }] : []),
                ...(context ? Object.entries(context).map(([k, v]) => ({ label: `${t('Encryption context')}: ${k}`, value: v })) : []),
              ]}
            />
          </Container>
          {!!e.Resources?.length && (
            <Table
              variant="container"
              items={e.Resources}
              wrapLines
              ariaLabels={{ tableLabel: t('Resources referenced') }}
              header={<Header variant="h2" counter={`(${e.Resources.length})`}>{t('Resources referenced')}</Header>}
              columnDefinitions={[
                { id: 'type', header: t('Resource type'), cell: (x) => x.ResourceType, isRowHeader: true },
                { id: 'name', header: t('Resource name'), cell: (x) => (/:key\//.test(x.ResourceName ?? '') ? <Link href={`/console/kms/keys/${x.ResourceName!.split('/').pop()}`} onFollow={follow}>{x.ResourceName}</Link> : x.ResourceName) },
              ]}
            />
          )}
          <Container header={<Header variant="h2" actions={<Copy text={JSON.stringify(r, null, 2)} label={t('Copy')} />}>{t('Event record')}</Header>}>
            <Box variant="pre">
              <span className="wrap-anywhere">{JSON.stringify(r, null, 2)}</span>
            </Box>
          </Container>
        </>
      )}
    </SpaceBetween>
  );
}
