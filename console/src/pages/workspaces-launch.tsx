import { CreateWorkspacesCommand, DescribeWorkspaceBundlesCommand, DescribeWorkspaceDirectoriesCommand, DescribeWorkspacesCommand, RunningMode, type WorkspaceBundle, type WorkspaceDirectory } from '@aws-sdk/client-workspaces';
import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Cards from '@cloudscape-design/components/cards';
import Container from '@cloudscape-design/components/container';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import RadioGroup from '@cloudscape-design/components/radio-group';
import Select from '@cloudscape-design/components/select';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Table from '@cloudscape-design/components/table';
import TextFilter from '@cloudscape-design/components/text-filter';
import Wizard from '@cloudscape-design/components/wizard';
import { useState } from 'react';
import { useNavigate } from 'react-router';
import { pages, workspaces } from '../lib/clients';
import { t } from '../lib/i18n';
import { type DirectoryUser, dsData } from '../lib/raw';
import { Empty, ErrorBox, useAction, useLoad, useNote, useRegion } from '../lib/ui';
import { CreateUser } from '../workspaces/create-user';
import { type Encryption, EncryptionStep, MANAGED, usePreflight } from '../workspaces/encryption-step';

const HOURS = Array.from({ length: 8 }, (_, i) => ({ value: String((i + 1) * 60), label: `${i + 1} h` }));

export default function Launch() {
  const region = useRegion();
  const navigate = useNavigate();
  const note = useNote();
  const a = useAction();
  const [step, setStep] = useState(0);
  const [directory, setDirectory] = useState<WorkspaceDirectory | null>(null);
  const [users, setUsers] = useState<DirectoryUser[]>([]);
  const [bundle, setBundle] = useState<WorkspaceBundle | null>(null);
  const [mode, setMode] = useState<string>(RunningMode.AUTO_STOP);
  const [minutes, setMinutes] = useState('60');
  const [encryption, setEncryption] = useState<Encryption>({ root: true, user: true, key: MANAGED });
  const [problem, setProblem] = useState('');
  const flight = usePreflight(region, encryption);
  const encrypted = encryption.root || encryption.user;

  const lacks = (n: number): string => {
    if (n === 0 && !directory) return 'Choose a directory.';
    if (n === 1 && users.length === 0) return 'Choose a user.';
    if (n === 2 && !bundle) return 'Choose a bundle.';
    if (n === 4 && encrypted && !encryption.key.trim()) return 'Choose a key.';
    if (n === 4 && encrypted && flight.data?.checks.some((c) => c.state === 'no' && c.id !== 'grant')) return 'This key cannot encrypt the volumes of a WorkSpace. Choose another.';
    return '';
  };

  const launch = () =>
    a.run(async () => {
      const c = await workspaces(region);
      const out = await c.send(
        new CreateWorkspacesCommand({
          Workspaces: users.map((u) => ({
            DirectoryId: directory!.DirectoryId,
            UserName: u.SAMAccountName,
            BundleId: bundle!.BundleId,
            RootVolumeEncryptionEnabled: encryption.root,
            UserVolumeEncryptionEnabled: encryption.user,
            VolumeEncryptionKey: encrypted ? encryption.key.trim() : undefined,
            WorkspaceProperties: { RunningMode: mode as RunningMode, RunningModeAutoStopTimeoutInMinutes: mode === RunningMode.AUTO_STOP ? Number(minutes) : undefined },
          })),
        }),
      );
      const made = out.PendingRequests ?? [];
      const failed = out.FailedRequests ?? [];
      if (made.length > 0) note({ type: 'success', content: `${t('Being launched')}: ${made.map((w) => `${w.WorkspaceId} (${w.UserName})`).join(', ')}` });
      if (failed.length > 0) {
        const e = Object.assign(new Error(failed.map((f) => `${f.WorkspaceRequest?.UserName}: ${f.ErrorMessage}`).join('\n')), { name: failed[0].ErrorCode ?? 'Error', $metadata: out.$metadata });
        if (made.length === 0) throw e;
        note({ type: 'error', content: <ErrorBox error={e} /> });
      }
      navigate(made.length === 1 ? `/workspaces/${made[0].WorkspaceId}` : '/workspaces');
    });

  return (
    <Wizard
      i18nStrings={{
        stepNumberLabel: (n) => `${t('Step')} ${n}`,
        collapsedStepsLabel: (n, all) => `${t('Step')} ${n} / ${all}`,
        skipToButtonLabel: (s) => `${t('Skip to')} ${s.title}`,
        navigationAriaLabel: t('Steps'),
        cancelButton: t('Cancel'),
        previousButton: t('Previous'),
        nextButton: t('Next'),
        submitButton: t('Launch WorkSpaces'),
      }}
      activeStepIndex={step}
      isLoadingNextStep={a.busy}
      onCancel={() => navigate('/workspaces')}
      onNavigate={(e) => {
        const to = e.detail.requestedStepIndex;
        const why = to > step ? lacks(step) : '';
        setProblem(why);
        if (!why) setStep(to);
      }}
      onSubmit={() => void launch()}
      steps={[
        { title: t('Directory'), description: t('Where the users are.'), content: <DirectoryStep region={region} value={directory} onChange={(d) => (setDirectory(d), setUsers([]), setProblem(''))} />, errorText: step === 0 && problem && t(problem) },
        {
          title: t('Users'),
          description: t('Each gets a desktop of their own.'),
          content: directory ? <UsersStep region={region} directoryId={directory.DirectoryId!} value={users} onChange={(u) => (setUsers(u), setProblem(''))} /> : null,
          errorText: step === 1 && problem && t(problem),
        },
        { title: t('Bundle'), description: t('Processors, memory and disks.'), content: <BundleStep region={region} value={bundle} onChange={(b) => (setBundle(b), setProblem(''))} />, errorText: step === 2 && problem && t(problem) },
        {
          title: t('Settings'),
          content: (
            <Container>
              <SpaceBetween size="m">
                <FormField label={t('Running mode')} stretch>
                  <RadioGroup
                    value={mode}
                    onChange={(e) => setMode(e.detail.value)}
                    items={[
                      { value: RunningMode.AUTO_STOP, label: 'AutoStop', description: t('Stops when nobody has been connected for a while; its data keys leave memory then.') },
                      { value: RunningMode.ALWAYS_ON, label: 'AlwaysOn', description: t('Runs all the time.') },
                      { value: RunningMode.MANUAL, label: 'Manual', description: t('Started and stopped by you or the user only.') },
                    ]}
                  />
                </FormField>
                {mode === RunningMode.AUTO_STOP && (
                  <FormField label={t('Stop after')}>
                    <Select selectedOption={HOURS.find((h) => h.value === minutes)!} options={HOURS} onChange={(e) => setMinutes(e.detail.selectedOption.value!)} ariaLabel={t('Stop after')} />
                  </FormField>
                )}
              </SpaceBetween>
            </Container>
          ),
        },
        { title: t('Encryption'), description: t('Which volumes, and under which key.'), content: <EncryptionStep region={region} value={encryption} onChange={(e) => (setEncryption(e), setProblem(''))} flight={flight} />, errorText: step === 4 && problem && t(problem) },
        {
          title: t('Review'),
          errorText: undefined,
          content: (
            <SpaceBetween size="l">
              <ErrorBox error={a.error} title={t('The launch was refused')} />
              {encrypted && flight.data?.checks.some((c) => c.state === 'no') && (
                <Alert type="warning" header={t('The launch will probably be refused')}>
                  {flight.data.checks.filter((c) => c.state === 'no').map((c) => <Box key={c.id}>{t(c.text)}</Box>)}
                </Alert>
              )}
              <Container header={<Header variant="h2">{t('Review')}</Header>}>
                <KeyValuePairs
                  columns={2}
                  items={[
                    { label: t('Directory'), value: `${directory?.DirectoryName ?? ''} (${directory?.DirectoryId ?? ''})` },
                    { label: t('Users'), value: users.map((u) => u.SAMAccountName).join(', ') },
                    { label: t('Bundle'), value: bundle?.Name },
                    { label: t('Running mode'), value: mode === RunningMode.AUTO_STOP ? `AutoStop, ${Number(minutes) / 60} h` : mode === RunningMode.MANUAL ? 'Manual' : 'AlwaysOn' },
                    { label: t('Volume Encryption'), value: [encryption.root && t('Root'), encryption.user && t('User')].filter(Boolean).join(', ') || t('Not encrypted') },
                    { label: t('Encryption key'), value: encrypted ? <Box variant="code">{encryption.key}</Box> : '-' },
                  ]}
                />
              </Container>
            </SpaceBetween>
          ),
        },
      ]}
    />
  );
}

function DirectoryStep({ region, value, onChange }: { region: string; value: WorkspaceDirectory | null; onChange: (d: WorkspaceDirectory) => void }) {
  const navigate = useNavigate();
  const load = useLoad(async () => {
    const c = await workspaces(region);
    return pages((NextToken) => c.send(new DescribeWorkspaceDirectoriesCommand({ NextToken })), (o) => o.Directories, (o) => o.NextToken);
  }, [region]);
  return (
    <SpaceBetween size="m">
      <ErrorBox error={load.error} />
      <Cards
        items={load.data ?? []}
        loading={load.loading && !load.data}
        loadingText={t('Loading')}
        trackBy="DirectoryId"
        selectionType="single"
        selectedItems={value ? [value] : []}
        onSelectionChange={(e) => onChange(e.detail.selectedItems[0])}
        ariaLabels={{ itemSelectionLabel: (_, d) => d.DirectoryName ?? '', selectionGroupLabel: t('Directory') }}
        cardDefinition={{ header: (d) => d.DirectoryName, sections: [{ id: 'id', content: (d) => d.DirectoryId }, { id: 'code', header: t('Registration code'), content: (d) => d.RegistrationCode }] }}
        empty={<Empty title={t('No registered directories')} text={t('Register a directory with WorkSpaces first.')} action={<Button onClick={() => navigate('/directories')}>{t('Directories')}</Button>} />}
      />
    </SpaceBetween>
  );
}

function UsersStep({ region, directoryId, value, onChange }: { region: string; directoryId: string; value: DirectoryUser[]; onChange: (u: DirectoryUser[]) => void }) {
  const [filter, setFilter] = useState('');
  const [creating, setCreating] = useState(false);
  const load = useLoad(async () => {
    const c = await workspaces(region);
    const [users, have] = await Promise.all([
      dsData.listUsers(region, directoryId),
      pages((NextToken) => c.send(new DescribeWorkspacesCommand({ DirectoryId: directoryId, NextToken })), (o) => o.Workspaces, (o) => o.NextToken),
    ]);
    const by = new Map(have.map((w) => [w.UserName?.toLowerCase(), w.WorkspaceId]));
    return users.map((u) => ({ ...u, has: by.get(u.SAMAccountName.toLowerCase()) }));
  }, [region, directoryId]);
  const items = (load.data ?? []).filter((u) => `${u.SAMAccountName} ${u.GivenName ?? ''} ${u.Surname ?? ''}`.toLowerCase().includes(filter.toLowerCase()));
  return (
    <>
      <Table
        items={items}
        trackBy="SAMAccountName"
        selectionType="multi"
        selectedItems={value as never}
        onSelectionChange={(e) => onChange(e.detail.selectedItems.slice(0, 25))}
        isItemDisabled={(u) => !!u.has || !u.Enabled}
        loading={load.loading && !load.data}
        loadingText={t('Loading')}
        ariaLabels={{ tableLabel: t('Users'), selectionGroupLabel: t('Selection'), allItemsSelectionLabel: () => t('Select all'), itemSelectionLabel: (_, u) => `${t('Select')} ${u.SAMAccountName}` }}
        header={
          <Header variant="h2" counter={`(${value.length}/25)`} actions={<Button onClick={() => setCreating(true)}>{t('Create user')}</Button>}>
            {t('Users')}
          </Header>
        }
        filter={<TextFilter filteringText={filter} onChange={(e) => setFilter(e.detail.filteringText)} filteringPlaceholder={t('Find users')} filteringAriaLabel={t('Find users')} />}
        empty={load.error ? <ErrorBox error={load.error} /> : <Empty title={t('No users')} text={t('Create one; a desktop belongs to a user of the directory.')} />}
        columnDefinitions={[
          { id: 'name', header: t('User name'), isRowHeader: true, cell: (u) => u.SAMAccountName },
          { id: 'full', header: t('Name'), cell: (u) => [u.GivenName, u.Surname].filter(Boolean).join(' ') || '-' },
          { id: 'has', header: 'WorkSpace', cell: (u) => u.has ?? (u.Enabled ? '-' : t('Disabled')) },
        ]}
      />
      {creating && (
        <CreateUser
          region={region}
          directoryId={directoryId}
          onClose={(name) => {
            setCreating(false);
            if (name) load.reload();
          }}
        />
      )}
    </>
  );
}

function BundleStep({ region, value, onChange }: { region: string; value: WorkspaceBundle | null; onChange: (b: WorkspaceBundle) => void }) {
  const load = useLoad(async () => {
    const c = await workspaces(region);
    const of = (Owner?: string) => pages((NextToken) => c.send(new DescribeWorkspaceBundlesCommand({ Owner, NextToken })), (o) => o.Bundles, (o) => o.NextToken);
    return (await Promise.all([of('AMAZON'), of()])).flat();
  }, [region]);
  return (
    <SpaceBetween size="m">
      <ErrorBox error={load.error} />
      <Cards
        items={load.data ?? []}
        loading={load.loading && !load.data}
        loadingText={t('Loading')}
        trackBy="BundleId"
        selectionType="single"
        selectedItems={value ? [value] : []}
        onSelectionChange={(e) => onChange(e.detail.selectedItems[0])}
        ariaLabels={{ itemSelectionLabel: (_, b) => b.Name ?? '', selectionGroupLabel: t('Bundle') }}
        cardDefinition={{
          header: (b) => b.Name,
          sections: [
            { id: 'about', content: (b) => <Box color="text-body-secondary">{b.Description}</Box> },
            { id: 'kind', header: t('Compute'), width: 50, content: (b) => b.ComputeType?.Name },
            { id: 'disks', header: t('Volumes'), width: 50, content: (b) => `${t('Root')} ${b.RootStorage?.Capacity} GiB, ${t('User')} ${b.UserStorage?.Capacity} GiB` },
          ],
        }}
      />
    </SpaceBetween>
  );
}
