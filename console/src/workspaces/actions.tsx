// What can be done to WorkSpaces, and what comes of it.

import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import SpaceBetween from '@cloudscape-design/components/space-between';
import {
  RebootWorkspacesCommand,
  RebuildWorkspacesCommand,
  RestoreWorkspaceCommand,
  StartWorkspacesCommand,
  StopWorkspacesCommand,
  TerminateWorkspacesCommand,
  type FailedWorkspaceChangeRequest,
  type Workspace,
} from '@aws-sdk/client-workspaces';
import { workspaces } from '../lib/clients';
import { t } from '../lib/i18n';
import { Confirm, useNote } from '../lib/ui';

export type Action = 'start' | 'stop' | 'reboot' | 'rebuild' | 'restore' | 'delete';

const NAMES: Record<Action, string> = { start: 'Start WorkSpaces', stop: 'Stop WorkSpaces', reboot: 'Reboot WorkSpaces', rebuild: 'Rebuild WorkSpaces', restore: 'Restore WorkSpace', delete: 'Delete WorkSpaces' };

const CONSEQUENCES: Record<Action, string[]> = {
  start: ['The desktop is powered on. EBS asks KMS to decrypt the data keys of its volumes again.'],
  stop: ['The user is cut off at once and programs are closed.', 'The volumes are detached: their data keys leave memory. The data stays, encrypted.'],
  reboot: ['The user is cut off at once; what was not saved is lost.', 'The volumes are detached and attached again, for which KMS must decrypt their data keys anew.'],
  rebuild: ['The root volume is made anew from the bundle: programs and settings of the system that were added are lost.', "The user's home is kept."],
  restore: ['Both volumes go back to their last snapshot; what was written since is lost.'],
  delete: ['The desktop and all data on its volumes are destroyed. There is no way back.', 'WorkSpaces and EBS retire their grants: the key can no longer be used for this desktop.'],
};

const BUTTONS: Record<Action, string> = { start: 'Start', stop: 'Stop', reboot: 'Reboot', rebuild: 'Rebuild', restore: 'Restore', delete: 'Delete' };

const STATES: Record<Action, string[]> = {
  start: ['STOPPED'],
  stop: ['AVAILABLE', 'IMPAIRED', 'UNHEALTHY', 'ERROR'],
  reboot: ['AVAILABLE', 'UNHEALTHY', 'IMPAIRED', 'ERROR'],
  rebuild: ['AVAILABLE', 'ERROR', 'UNHEALTHY', 'IMPAIRED', 'STOPPED', 'REBOOTING'],
  restore: ['AVAILABLE', 'ERROR', 'UNHEALTHY', 'STOPPED'],
  delete: [],
};

/** Why an action cannot be asked for now; '' when it can. */
export function hindered(action: Action, selected: Workspace[]): string {
  if (selected.length === 0) return 'Select a WorkSpace first.';
  if (action === 'restore' && selected.length > 1) return 'Restore one WorkSpace at a time.';
  if ((action === 'start' || action === 'stop') && selected.some((w) => w.WorkspaceProperties?.RunningMode === 'ALWAYS_ON')) return 'A WorkSpace whose running mode is AlwaysOn is neither started nor stopped.';
  if (action !== 'delete' && selected.some((w) => !STATES[action].includes(w.State ?? ''))) return `Needs a WorkSpace that is ${STATES[action].join(', ')}.`;
  return '';
}

export const ACTIONS: Action[] = ['start', 'stop', 'reboot', 'rebuild', 'restore', 'delete'];

export const actionItems = (selected: Workspace[]) =>
  ACTIONS.map((a) => {
    const why = hindered(a, selected);
    return { id: a, text: t(BUTTONS[a]), disabled: !!why, disabledReason: t(why) };
  });

async function send(region: string, action: Action, ids: string[]): Promise<FailedWorkspaceChangeRequest[]> {
  const c = await workspaces(region);
  const each = ids.map((WorkspaceId) => ({ WorkspaceId }));
  switch (action) {
    case 'start':
      return (await c.send(new StartWorkspacesCommand({ StartWorkspaceRequests: each }))).FailedRequests ?? [];
    case 'stop':
      return (await c.send(new StopWorkspacesCommand({ StopWorkspaceRequests: each }))).FailedRequests ?? [];
    case 'reboot':
      return (await c.send(new RebootWorkspacesCommand({ RebootWorkspaceRequests: each }))).FailedRequests ?? [];
    case 'rebuild':
      return (await c.send(new RebuildWorkspacesCommand({ RebuildWorkspaceRequests: each }))).FailedRequests ?? [];
    case 'delete':
      return (await c.send(new TerminateWorkspacesCommand({ TerminateWorkspaceRequests: each }))).FailedRequests ?? [];
    case 'restore':
      await c.send(new RestoreWorkspaceCommand({ WorkspaceId: ids[0] }));
      return [];
  }
}

export function ActionDialog({ action, selected, region, onClose }: { action: Action; selected: Workspace[]; region: string; onClose: (done: boolean) => void }) {
  const note = useNote();
  const ids = selected.map((w) => w.WorkspaceId!);
  const typed = action === 'delete' ? (ids.length === 1 ? ids[0] : 'delete') : action === 'rebuild' || action === 'restore' ? action : undefined;
  const run = async () => {
    const failed = await send(region, action, ids);
    if (failed.length > 0) {
      const e = new Error(failed.map((f) => `${f.WorkspaceId}: ${f.ErrorMessage}`).join(' '));
      e.name = failed[0].ErrorCode ?? 'Error';
      throw e;
    }
    note({ type: 'success', content: `${t(NAMES[action])}: ${ids.join(', ')}` });
  };
  return (
    <Confirm title={t(NAMES[action])} button={t(BUTTONS[action])} typed={typed} onConfirm={run} onClose={onClose}>
      <SpaceBetween size="s">
        <ul>
          {selected.map((w) => (
            <li key={w.WorkspaceId}>
              <b>{w.WorkspaceId}</b> {w.UserName} {w.ComputerName}
            </li>
          ))}
        </ul>
        <Alert type={action === 'delete' || action === 'rebuild' || action === 'restore' ? 'warning' : 'info'}>
          {CONSEQUENCES[action].map((c) => (
            <Box key={c}>{t(c)}</Box>
          ))}
        </Alert>
      </SpaceBetween>
    </Confirm>
  );
}

/** "Root, User", as the console's Volume Encryption column says it. */
export const encryption = (w: Workspace) =>
  [w.RootVolumeEncryptionEnabled && t('Root'), w.UserVolumeEncryptionEnabled && t('User')].filter(Boolean).join(', ') || t('Not encrypted');

export const keyOf = (w: Workspace) => (w.VolumeEncryptionKey ?? '').split('/').pop() ?? '';
