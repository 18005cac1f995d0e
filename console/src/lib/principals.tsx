// Choosing IAM users and roles, as the KMS console does it.

import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Table from '@cloudscape-design/components/table';
import TextFilter from '@cloudscape-design/components/text-filter';
import Pagination from '@cloudscape-design/components/pagination';
import { useCollection } from '@cloudscape-design/collection-hooks';
import { useState } from 'react';
import * as client from './clients';
import { pages } from './clients';
import { t } from './i18n';
import { Confirm, Empty, ErrorBox, useLoad } from './ui';

export interface Principal {
  arn: string;
  name: string;
  path: string;
  type: 'User' | 'Role';
}

/** The account's users and roles; roles that services hold for themselves are left out. */
export async function listPrincipals(): Promise<Principal[]> {
  const [c, { ListUsersCommand, ListRolesCommand }] = await Promise.all([client.iam('us-east-1'), import('@aws-sdk/client-iam')]);
  const [users, roles] = await Promise.all([
    pages((Marker) => c.send(new ListUsersCommand({ Marker })), (p) => p.Users, (p) => p.Marker),
    pages((Marker) => c.send(new ListRolesCommand({ Marker })), (p) => p.Roles, (p) => p.Marker),
  ]);
  return [
    ...users.map((u) => ({ arn: u.Arn!, name: u.UserName!, path: u.Path!, type: 'User' as const })),
    ...roles.filter((r) => !r.Path!.startsWith('/aws-service-role/')).map((r) => ({ arn: r.Arn!, name: r.RoleName!, path: r.Path!, type: 'Role' as const })),
  ];
}

/** What a key policy's principal is called. A bare ID is of somebody who was deleted. */
export function describePrincipal(p: string): { name: string; type: string; path: string; gone: boolean } {
  const m = /^arn:aws[\w-]*:(?:iam|sts)::(\d{12}):(user|role|root|assumed-role|federated-user)(\/.*)?$/.exec(p);
  if (m) {
    const parts = (m[3] ?? '').split('/');
    return { name: m[2] === 'root' ? `${t('Account')} ${m[1]}` : parts[parts.length - 1], type: m[2] === 'user' ? 'User' : m[2] === 'role' ? 'Role' : m[2], path: parts.slice(0, -1).join('/') + '/', gone: false };
  }
  return { name: p, type: p.endsWith('.amazonaws.com') ? 'Service' : '-', path: '-', gone: /^A(IDA|ROA)[A-Z0-9]+$/.test(p) };
}

interface TableProps {
  label: string;
  selected: string[];
  onChange: (arns: string[]) => void;
  /** Already chosen: not offered. */
  without?: string[];
}

export function PrincipalTable({ label, selected, onChange, without = [] }: TableProps) {
  const load = useLoad(listPrincipals, []);
  const offered = (load.data ?? []).filter((p) => !without.includes(p.arn));
  const c = useCollection(offered, {
    filtering: { empty: <Empty title={t('No IAM users or roles')} text={t('Create a user or a role in IAM first.')} />, noMatch: <Empty title={t('No matches')} /> },
    pagination: { pageSize: 10 },
    sorting: {},
  });
  return (
    <SpaceBetween size="s">
      <ErrorBox error={load.error} />
      <Table
        {...c.collectionProps}
        items={c.items}
        variant="embedded"
        trackBy="arn"
        loading={load.loading && !load.data}
        loadingText={t('Loading')}
        selectionType="multi"
        selectedItems={offered.filter((p) => selected.includes(p.arn))}
        onSelectionChange={(e) => onChange(e.detail.selectedItems.map((p) => p.arn))}
        ariaLabels={{ tableLabel: label, selectionGroupLabel: label, allItemsSelectionLabel: () => t('Select all'), itemSelectionLabel: (_, p) => `${t('Select')} ${p.name}` }}
        filter={<TextFilter {...c.filterProps} filteringPlaceholder={t('Find users and roles')} filteringAriaLabel={t('Find users and roles')} filteringClearAriaLabel={t('Clear')} />}
        pagination={(c.paginationProps.pagesCount ?? 1) > 1 ? <Pagination {...c.paginationProps} ariaLabels={{ nextPageLabel: t('Next page'), previousPageLabel: t('Previous page'), pageLabel: (n) => `${t('Page')} ${n}` }} /> : undefined}
        columnDefinitions={[
          { id: 'name', header: t('Name'), cell: (p) => p.name, sortingField: 'name', isRowHeader: true },
          { id: 'path', header: t('Path'), cell: (p) => p.path, sortingField: 'path' },
          { id: 'type', header: t('Type'), cell: (p) => t(p.type), sortingField: 'type' },
        ]}
      />
    </SpaceBetween>
  );
}

interface AddProps {
  title: string;
  text: string;
  without: string[];
  onAdd: (arns: string[]) => Promise<unknown>;
  onClose: (done: boolean) => void;
}

export function AddPrincipals({ title, text, without, onAdd, onClose }: AddProps) {
  const [chosen, setChosen] = useState<string[]>([]);
  return (
    <Confirm title={title} button={t('Add')} wide disabled={chosen.length === 0} onConfirm={() => onAdd(chosen)} onClose={onClose}>
      <Box>{text}</Box>
      <PrincipalTable label={title} selected={chosen} onChange={setChosen} without={without} />
      {chosen.length > 50 && <Alert type="warning">{t('A key policy holds 32 KB: consider a role instead of many users.')}</Alert>}
    </Confirm>
  );
}
