// Who may reach the desktops of a directory, from where, and what may pass.

import {
  AssociateIpGroupsCommand,
  CreateIpGroupCommand,
  DeleteIpGroupCommand,
  DisassociateIpGroupsCommand,
  ModifySelfservicePermissionsCommand,
  ModifyStreamingPropertiesCommand,
  ModifyWorkspaceAccessPropertiesCommand,
  type UserSettingActionEnum,
  type WorkspaceDirectory,
  type WorkspacesIpGroup,
} from '@aws-sdk/client-workspaces';
import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import Container from '@cloudscape-design/components/container';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Table from '@cloudscape-design/components/table';
import Textarea from '@cloudscape-design/components/textarea';
import Toggle from '@cloudscape-design/components/toggle';
import { useState } from 'react';
import { workspaces } from '../lib/clients';
import { t } from '../lib/i18n';
import { Confirm, ErrorBox, useAction } from '../lib/ui';

interface Props {
  region: string;
  directory: WorkspaceDirectory;
  groups: WorkspacesIpGroup[];
  onChange: () => void;
}

export function AccessSettings({ region, directory: d, groups, onChange }: Props) {
  const a = useAction();
  const [creating, setCreating] = useState(false);
  const ResourceId = d.DirectoryId;
  const change = (f: (c: Awaited<ReturnType<typeof workspaces>>) => Promise<unknown>) => void a.run(async () => f(await workspaces(region))).then((ok) => ok && onChange());
  const clip = (Action: UserSettingActionEnum) => d.StreamingProperties?.UserSettings?.find((u) => u.Action === Action)?.Permission !== 'DISABLED';
  const setClip = (Action: UserSettingActionEnum, on: boolean) =>
    change((c) => c.send(new ModifyStreamingPropertiesCommand({ ResourceId, StreamingProperties: { UserSettings: [{ Action, Permission: on ? 'ENABLED' : 'DISABLED' }] } })));
  return (
    <Container header={<Header variant="h2" description={t('Changes hold at once, for open connections too.')}>{t('Access to desktops')}</Header>}>
      <SpaceBetween size="l">
        <ErrorBox error={a.error} />
        <SpaceBetween size="s">
          <Toggle
            checked={d.WorkspaceAccessProperties?.DeviceTypeWeb !== 'DENY'}
            disabled={a.busy}
            onChange={(e) => change((c) => c.send(new ModifyWorkspaceAccessPropertiesCommand({ ResourceId, WorkspaceAccessProperties: { DeviceTypeWeb: e.detail.checked ? 'ALLOW' : 'DENY' } })))}
            description={t('Without it nobody reaches a desktop.')}
          >
            {t('Web access')}
          </Toggle>
          <Toggle
            checked={d.SelfservicePermissions?.RestartWorkspace === 'ENABLED'}
            disabled={a.busy}
            onChange={(e) => change((c) => c.send(new ModifySelfservicePermissionsCommand({ ResourceId, SelfservicePermissions: { RestartWorkspace: e.detail.checked ? 'ENABLED' : 'DISABLED' } })))}
          >
            {t('Users may reboot their desktops')}
          </Toggle>
          <Toggle checked={clip('CLIPBOARD_COPY_FROM_LOCAL_DEVICE')} disabled={a.busy} onChange={(e) => setClip('CLIPBOARD_COPY_FROM_LOCAL_DEVICE', e.detail.checked)}>
            {t('Clipboard: text may be copied to desktops')}
          </Toggle>
          <Toggle checked={clip('CLIPBOARD_COPY_TO_LOCAL_DEVICE')} disabled={a.busy} onChange={(e) => setClip('CLIPBOARD_COPY_TO_LOCAL_DEVICE', e.detail.checked)}>
            {t('Clipboard: text may be copied from desktops')}
          </Toggle>
        </SpaceBetween>
        <Table
          variant="embedded"
          items={groups}
          trackBy="groupId"
          wrapLines
          ariaLabels={{ tableLabel: t('IP access control groups') }}
          header={
            <Header
              variant="h3"
              description={d.ipGroupIds?.length ? t('Only addresses in these groups reach the desktops.') : t('Without a group, every address may.')}
              actions={<Button onClick={() => setCreating(true)}>{t('Create IP group')}</Button>}
            >
              {t('IP access control groups')}
            </Header>
          }
          empty={<Box color="text-body-secondary">{t('No groups')}</Box>}
          columnDefinitions={[
            { id: 'name', header: t('Name'), isRowHeader: true, cell: (g) => g.groupName },
            { id: 'rules', header: t('Addresses'), cell: (g) => g.userRules?.map((r) => r.ipRule).join(', ') || '-' },
            {
              id: 'on',
              header: t('Applies'),
              cell: (g) => (
                <Toggle
                  ariaLabel={`${t('Applies')}: ${g.groupName}`}
                  checked={!!d.ipGroupIds?.includes(g.groupId!)}
                  disabled={a.busy}
                  onChange={(e) =>
                    change((c) =>
                      e.detail.checked ? c.send(new AssociateIpGroupsCommand({ DirectoryId: ResourceId, GroupIds: [g.groupId!] })) : c.send(new DisassociateIpGroupsCommand({ DirectoryId: ResourceId, GroupIds: [g.groupId!] })),
                    )
                  }
                />
              ),
            },
            {
              id: 'delete',
              header: t('Action'),
              cell: (g) => (
                <Button variant="inline-link" ariaLabel={`${t('Delete')} ${g.groupName}`} disabled={!!d.ipGroupIds?.includes(g.groupId!)} onClick={() => change((c) => c.send(new DeleteIpGroupCommand({ GroupId: g.groupId })))}>
                  {t('Delete')}
                </Button>
              ),
            },
          ]}
        />
      </SpaceBetween>
      {creating && (
        <CreateGroup
          region={region}
          onClose={(done) => {
            setCreating(false);
            if (done) onChange();
          }}
        />
      )}
    </Container>
  );
}

function CreateGroup({ region, onClose }: { region: string; onClose: (done: boolean) => void }) {
  const [name, setName] = useState('');
  const [rules, setRules] = useState('');
  const list = rules.split(/[\s,]+/).filter(Boolean);
  const run = async () => (await workspaces(region)).send(new CreateIpGroupCommand({ GroupName: name.trim(), UserRules: list.map((ipRule) => ({ ipRule })) }));
  return (
    <Confirm title={t('Create IP group')} button={t('Create IP group')} disabled={!name.trim() || list.length === 0} onConfirm={run} onClose={onClose}>
      <FormField label={t('Name')}>
        <Input value={name} onChange={(e) => setName(e.detail.value)} />
      </FormField>
      <FormField label={t('Addresses')} description={t('One range a line, such as 203.0.113.0/24.')}>
        <Textarea value={rules} onChange={(e) => setRules(e.detail.value)} rows={4} />
      </FormField>
      <Alert type="info">{t('It applies when you switch it on for a directory. Make sure that your own users are in it.')}</Alert>
    </Confirm>
  );
}
