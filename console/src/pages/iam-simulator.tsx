// What would the policies decide, and by which statement?

import Alert from '@cloudscape-design/components/alert';
import AttributeEditor from '@cloudscape-design/components/attribute-editor';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Checkbox from '@cloudscape-design/components/checkbox';
import Container from '@cloudscape-design/components/container';
import ExpandableSection from '@cloudscape-design/components/expandable-section';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import Select from '@cloudscape-design/components/select';
import SpaceBetween from '@cloudscape-design/components/space-between';
import StatusIndicator from '@cloudscape-design/components/status-indicator';
import Table from '@cloudscape-design/components/table';
import Textarea from '@cloudscape-design/components/textarea';
import { useState } from 'react';
import * as client from '../lib/clients';
import { document, iam, iamAll } from '../lib/iam';
import { t } from '../lib/i18n';
import { Empty, ErrorBox, useAction, useLoad, useRegion } from '../lib/ui';

interface Statement {
  SourcePolicyId?: string;
  SourcePolicyType?: string;
  StartPosition?: { Line?: number; Column?: number };
  EndPosition?: { Line?: number; Column?: number };
}
interface Result {
  EvalActionName: string;
  EvalResourceName?: string;
  EvalDecision: 'allowed' | 'explicitDeny' | 'implicitDeny';
  MatchedStatements?: Statement[];
  MissingContextValues?: string[];
  PermissionsBoundaryDecisionDetail?: { AllowedByPermissionsBoundary?: boolean };
  EvalDecisionDetails?: Record<string, string>;
}

/** The reason in a sentence. */
export function explain(r: Result): string {
  const n = r.MatchedStatements?.length ?? 0;
  if (r.EvalDecision === 'explicitDeny') return t('A statement denies it. A deny wins over every allow.');
  if (r.EvalDecision === 'allowed') return t('A statement allows it, and none denies it.');
  if (r.PermissionsBoundaryDecisionDetail?.AllowedByPermissionsBoundary === false) return t('The permissions boundary does not allow it, whatever the policies say.');
  if (n > 0) return t('A statement allows it, but not all that must: the policy of the resource or of the other account does not.');
  return t('No statement allows it, and what is not allowed is denied.');
}

/** Cuts the statement out of its document. */
export function cut(text: string, s: Statement): string {
  const lines = text.split('\n');
  const from = s.StartPosition?.Line ?? 1;
  const to = s.EndPosition?.Line ?? lines.length;
  const part = lines.slice(from - 1, to);
  if (part.length === 0) return '';
  if (s.EndPosition?.Column) part[part.length - 1] = part[part.length - 1].slice(0, s.EndPosition.Column - 1);
  if (s.StartPosition?.Column) part[0] = part[0].slice(s.StartPosition.Column - 1);
  return part.join('\n');
}

async function principals() {
  const [users, groups, roles] = await Promise.all([iamAll('ListUsers', 'Users'), iamAll('ListGroups', 'Groups'), iamAll('ListRoles', 'Roles')]);
  const group = (label: string, all: { Arn: string }[]) => ({ label: t(label), options: all.map((x) => ({ value: x.Arn, label: x.Arn.split('/').pop()!, description: x.Arn })) });
  return [group('Users', users), group('Groups', groups), group('Roles', roles)];
}

/** The texts of the policies that decided, by the names the simulator gives them. */
async function sources(results: Result[], resourcePolicy: string | undefined): Promise<Record<string, string>> {
  const texts: Record<string, string> = {};
  const names = new Set(results.flatMap((r) => r.MatchedStatements ?? []).map((s) => s.SourcePolicyId ?? ''));
  const managed = names.size ? await iamAll('ListPolicies', 'Policies', { Scope: 'All' }) : [];
  for (const name of names) {
    const p = managed.find((x) => x.PolicyName === name);
    const inline = /^(user|group|role)_([^_]+)_(.+)$/.exec(name);
    try {
      if (p) texts[name] = decodeURIComponent((await iam('GetPolicyVersion', { PolicyArn: p.Arn, VersionId: p.DefaultVersionId })).PolicyVersion.Document);
      else if (inline) {
        const w = inline[1][0].toUpperCase() + inline[1].slice(1);
        texts[name] = decodeURIComponent((await iam(`Get${w}Policy`, { [`${w}Name`]: inline[2], PolicyName: inline[3] })).PolicyDocument);
      } else if (resourcePolicy) texts[name] = resourcePolicy;
    } catch {
      // The decision stands without its text.
    }
  }
  return texts;
}

export default function Simulator() {
  const region = useRegion();
  const load = useLoad(principals, []);
  const a = useAction();
  const [who, setWho] = useState<{ value: string; label: string } | null>(null);
  const [actions, setActions] = useState('kms:CreateGrant\nkms:ListAliases\nworkspaces:CreateWorkspaces');
  const [resource, setResource] = useState('*');
  const [withKey, setWithKey] = useState(true);
  const [context, setContext] = useState<{ key: string; value: string }[]>([]);
  const [out, setOut] = useState<{ results: Result[]; texts: Record<string, string> } | null>(null);
  const key = /^arn:[^:]+:kms:[^:]+:\d{12}:key\/(.+)$/.exec(resource.trim());

  const run = () =>
    a.run(async () => {
      let policy: string | undefined;
      if (key && withKey) {
        const [c, { GetKeyPolicyCommand }] = await Promise.all([client.kms(resource.split(':')[3] || region), import('@aws-sdk/client-kms')]);
        policy = (await c.send(new GetKeyPolicyCommand({ KeyId: resource.trim(), PolicyName: 'default' }))).Policy;
      }
      const results = await iamAll<Result>('SimulatePrincipalPolicy', 'EvaluationResults', {
        PolicySourceArn: who!.value,
        ActionNames: actions.split(/[\s,]+/).filter(Boolean),
        ResourceArns: [resource.trim() || '*'],
        ResourcePolicy: policy,
        CallerArn: policy && who!.value.includes(':user/') ? who!.value : undefined,
        ContextEntries: context.filter((x) => x.key).map((x) => ({ ContextKeyName: x.key, ContextKeyType: 'string', ContextKeyValues: [x.value] })),
      });
      setOut({ results, texts: await sources(results, policy) });
    });

  return (
    <SpaceBetween size="l">
      <Header variant="h1" description={t('Try out what a user, group or role may do, and see which statement decides. Nothing is called.')}>
        {t('Policy simulator')}
      </Header>
      <Container>
        <SpaceBetween size="m">
          <ErrorBox error={load.error} />
          <FormField label={t('User, group or role')}>
            <Select
              selectedOption={who}
              options={load.data ?? []}
              filteringType="auto"
              filteringAriaLabel={t('Find')}
              statusType={load.loading ? 'loading' : 'finished'}
              placeholder={t('Choose')}
              onChange={(e) => setWho(e.detail.selectedOption as { value: string; label: string })}
            />
          </FormField>
          <FormField label={t('Actions')} description={t('One a line, as service:Action.')}>
            <Textarea value={actions} onChange={(e) => setActions(e.detail.value)} rows={4} spellcheck={false} />
          </FormField>
          <FormField label={t('Resource')} description={t('An ARN, or *.')}>
            <Input value={resource} onChange={(e) => setResource(e.detail.value)} />
          </FormField>
          {key && (
            <Checkbox checked={withKey} onChange={(e) => setWithKey(e.detail.checked)}>
              {t('Count the key policy of this key too')}
            </Checkbox>
          )}
          <ExpandableSection headerText={t('Condition context')}>
            <AttributeEditor
              items={context}
              addButtonText={t('Add context key')}
              removeButtonText={t('Remove')}
              empty={t('None')}
              onAddButtonClick={() => setContext([...context, { key: '', value: '' }])}
              onRemoveButtonClick={(e) => setContext(context.filter((_, i) => i !== e.detail.itemIndex))}
              definition={[
                { label: t('Key'), control: (x, i) => <Input value={x.key} ariaLabel={`${t('Key')} ${i + 1}`} placeholder="kms:ViaService" onChange={(e) => setContext(context.map((y, n) => (n === i ? { ...y, key: e.detail.value } : y)))} /> },
                { label: t('Value'), control: (x, i) => <Input value={x.value} ariaLabel={`${t('Value')} ${i + 1}`} onChange={(e) => setContext(context.map((y, n) => (n === i ? { ...y, value: e.detail.value } : y)))} /> },
              ]}
            />
          </ExpandableSection>
          <ErrorBox error={a.error} title={t('Not simulated')} />
          <Button variant="primary" loading={a.busy} disabled={!who || !actions.trim()} onClick={run}>
            {t('Run simulation')}
          </Button>
        </SpaceBetween>
      </Container>
      {out && (
        <Table
          variant="container"
          wrapLines
          items={out.results}
          trackBy={(r) => r.EvalActionName + r.EvalResourceName}
          ariaLabels={{ tableLabel: t('Decisions') }}
          empty={<Empty title={t('No decisions')} />}
          header={<Header variant="h2" counter={`(${out.results.length})`}>{t('Decisions')}</Header>}
          columnDefinitions={[
            { id: 'action', header: t('Action'), cell: (r) => r.EvalActionName, isRowHeader: true, minWidth: 160 },
            {
              id: 'decision',
              header: t('Decision'),
              minWidth: 140,
              cell: (r) => <StatusIndicator type={r.EvalDecision === 'allowed' ? 'success' : 'error'}>{t({ allowed: 'Allowed', explicitDeny: 'Denied explicitly', implicitDeny: 'Denied implicitly' }[r.EvalDecision])}</StatusIndicator>,
            },
            {
              id: 'why',
              header: t('Why'),
              minWidth: 300,
              cell: (r) => (
                <SpaceBetween size="xs">
                  <Box>{explain(r)}</Box>
                  {Object.entries(r.EvalDecisionDetails ?? {}).map(([layer, d]) => (
                    <Box key={layer} variant="small" display="block">{`${t(layer)}: ${t({ allowed: 'Allowed', explicitDeny: 'Denied explicitly', implicitDeny: 'Denied implicitly' }[d as 'allowed'] ?? d)}`}</Box>
                  ))}
                  {!!r.MissingContextValues?.length && (
                    <Alert type="info">{`${t('A condition asks for what was not given; add it to the condition context')}: ${r.MissingContextValues.join(', ')}`}</Alert>
                  )}
                  {r.MatchedStatements?.map((s, i) => (
                    <ExpandableSection key={`${s.SourcePolicyId}${s.StartPosition?.Line}:${s.StartPosition?.Column}`} headerText={`${s.SourcePolicyId} (${s.SourcePolicyType ?? ''}), ${t('line')} ${s.StartPosition?.Line ?? '?'}`} defaultExpanded={i === 0}>
                      <Box variant="pre">
                        <span className="wrap-anywhere">{document(encodeURIComponent(cut(out.texts[s.SourcePolicyId ?? ''] ?? '', s)))}</span>
                      </Box>
                    </ExpandableSection>
                  ))}
                </SpaceBetween>
              ),
            },
          ]}
        />
      )}
    </SpaceBetween>
  );
}
