// What pages share: loading, errors, tables, confirmations, settings.

import { useCollection } from '@cloudscape-design/collection-hooks';
import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import CopyToClipboard from '@cloudscape-design/components/copy-to-clipboard';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import Modal from '@cloudscape-design/components/modal';
import Pagination from '@cloudscape-design/components/pagination';
import SpaceBetween from '@cloudscape-design/components/space-between';
import StatusIndicator, { type StatusIndicatorProps } from '@cloudscape-design/components/status-indicator';
import Table, { type TableProps } from '@cloudscape-design/components/table';
import TextFilter from '@cloudscape-design/components/text-filter';
import { Children, createContext, Fragment, isValidElement, type ReactNode, useCallback, useContext, useEffect, useRef, useState } from 'react';
import { useNavigate } from 'react-router';
import { t } from './i18n';
import './ui.css';

export const RegionContext = createContext('us-east-1');
export const useRegion = () => useContext(RegionContext);

export interface Note {
  id: string;
  type: 'success' | 'error' | 'info' | 'warning';
  content: ReactNode;
}
export const NoteContext = createContext<(n: Omit<Note, 'id'>) => void>(() => {});
export const useNote = () => useContext(NoteContext);

export interface Loaded<T> {
  data: T | undefined;
  error: unknown;
  loading: boolean;
  reload: () => void;
}

/** Loads something, again when deps change; what an older load brings is dropped. */
export function useLoad<T>(load: () => Promise<T>, deps: unknown[], every = 0): Loaded<T> {
  const [state, set] = useState<{ data: T | undefined; error: unknown; loading: boolean }>({ data: undefined, error: null, loading: true });
  const turn = useRef(0);
  const run = useCallback((quiet = false) => {
    const mine = ++turn.current;
    if (!quiet) set((s) => ({ ...s, loading: true }));
    load().then(
      (data) => mine === turn.current && set({ data, error: null, loading: false }),
      (error) => mine === turn.current && set((s) => ({ ...s, error, loading: false })),
    );
    // biome-ignore: the caller says what it depends on
  }, deps);
  useEffect(() => {
    set({ data: undefined, error: null, loading: true });
    run();
    if (!every) return undefined;
    const timer = setInterval(() => document.visibilityState === 'visible' && run(true), every);
    return () => clearInterval(timer);
  }, [run, every]);
  return { ...state, reload: run as () => void };
}

interface ServiceFault {
  name?: string;
  message?: string;
  requestId?: string;
  $metadata?: { requestId?: string };
}

const NEXT: [RegExp, string][] = [
  [/AccessDenied|UnauthorizedOperation/, 'Ask an administrator for the permission that the message names, or switch to a role that has it.'],
  [/Expired|InvalidClientTokenId|UnrecognizedClient/, 'Sign in again.'],
  [/Throttl|TooMany/, 'Wait a moment and try again.'],
  [/NotFound|NoSuch/, 'It may have been deleted, or be in another region: look at the region selector.'],
  [/LimitExceeded/, 'Delete something that is no longer needed, or use another key.'],
];

export const nextStep = (name: string) => NEXT.find(([r]) => r.test(name))?.[1] ?? '';

/** An error as people can use it: the reason, the request ID, what to do next. */
export function ErrorBox({ error, title }: { error: unknown; title?: string }) {
  if (!error) return null;
  const e = error as ServiceFault;
  const id = e.$metadata?.requestId ?? e.requestId;
  const step = nextStep(e.name ?? '');
  return (
    <Alert type="error" header={title ?? e.name ?? t('Something went wrong')}>
      <Box>{title && e.name ? `${e.name}: ${e.message}` : e.message}</Box>
      {step && <Box margin={{ top: 'xs' }}>{t(step)}</Box>}
      {id && (
        <Box margin={{ top: 'xs' }} fontSize="body-s" color="text-body-secondary">
          {t('Request ID')}: {id}
        </Box>
      )}
    </Alert>
  );
}

export function Status({ value, label }: { value: string | undefined; label?: string }) {
  const v = value ?? '';
  let type: StatusIndicatorProps.Type = 'info';
  if (/^(AVAILABLE|Enabled|Active|available|in-use|completed|Completed|REGISTERED|CONNECTED|Allowed|allowed)$/.test(v)) type = 'success';
  else if (/^(ERROR|FAILED|UNHEALTHY|IMPAIRED|error|Failed|Unavailable|Inoperable|denied|explicitDeny|implicitDeny)$/.test(v)) type = 'error';
  else if (/^(STOPPED|TERMINATED|SUSPENDED|Disabled|DISCONNECTED|deleted|Deleted)$/.test(v)) type = 'stopped';
  else if (/^(PendingDeletion|PendingImport|PendingReplicaDeletion|Impaired)$/.test(v)) type = 'warning';
  else if (/ING$|ing$|^PENDING$|^Requested$|^pending$/.test(v)) type = 'in-progress';
  return <StatusIndicator type={type}>{label ?? t(v)}</StatusIndicator>;
}

export const Copy = ({ text, label }: { text: string | undefined; label?: string }) =>
  text ? <CopyToClipboard variant="inline" textToCopy={text} textToDisplay={label ?? text} copyButtonAriaLabel={`${t('Copy')} ${text}`} copySuccessText={t('Copied')} copyErrorText={t('Not copied')} /> : <>-</>;

export const time = (d: Date | string | number | undefined) => (d === undefined || d === null ? '-' : new Date(d).toLocaleString(document.documentElement.lang === 'ja' ? 'ja-JP' : 'en-GB', { dateStyle: 'medium', timeStyle: 'medium' }));

export function Empty({ title, text, action }: { title: string; text?: string; action?: ReactNode }) {
  return (
    <Box textAlign="center" color="inherit" padding={{ vertical: 'm' }}>
      <Box variant="strong" color="inherit">
        {title}
      </Box>
      {text && (
        <Box color="inherit" padding={{ top: 'xs', bottom: 's' }}>
          {text}
        </Box>
      )}
      {action}
    </Box>
  );
}

export interface ListProps<T> {
  title: string;
  description?: ReactNode;
  load: Loaded<T[]>;
  columns: TableProps.ColumnDefinition<T>[];
  trackBy: string | ((t: T) => string);
  empty: ReactNode;
  actions?: (selected: T[]) => ReactNode;
  selection?: 'single' | 'multi';
  onSelect?: (selected: T[]) => void;
  placeholder?: string;
  variant?: TableProps.Variant;
  filter?: boolean;
  text?: (t: T) => string;
  filters?: ReactNode;
}

// SpaceBetween spaces its own children only, not those of a fragment.
const flat = (n: ReactNode): ReactNode => (isValidElement<{ children?: ReactNode }>(n) && n.type === Fragment ? Children.toArray(n.props.children) : n);

/** A list of resources, as in every console: filter, pages, selection, actions. */
export function List<T>(p: ListProps<T>) {
  const items = p.load.data ?? [];
  const c = useCollection(items, {
    filtering: {
      empty: p.empty,
      noMatch: <Empty title={t('No matches')} text={t('Nothing here matches the filter.')} />,
      filteringFunction: p.text ? (item, text) => p.text!(item).toLowerCase().includes(text.toLowerCase()) : undefined,
    },
    pagination: { pageSize: 20 },
    sorting: {},
    selection: { trackBy: p.trackBy as never, keepSelection: true },
  });
  const selected = (c.collectionProps.selectedItems ?? []) as T[];
  return (
    <SpaceBetween size="m">
      <ErrorBox error={p.load.error} title={`${p.title}: ${t('not loaded')}`} />
      <Table
        {...c.collectionProps}
        onSelectionChange={(e) => {
          c.collectionProps.onSelectionChange?.(e);
          p.onSelect?.(e.detail.selectedItems);
        }}
        items={c.items}
        columnDefinitions={p.columns}
        loading={p.load.loading && !p.load.data}
        loadingText={t('Loading')}
        selectionType={p.selection}
        variant={p.variant}
        wrapLines
        ariaLabels={{
          tableLabel: p.title,
          selectionGroupLabel: t('Selection'),
          allItemsSelectionLabel: () => t('Select all'),
          itemSelectionLabel: (_, item) => `${t('Select')} ${typeof p.trackBy === 'function' ? p.trackBy(item) : String((item as Record<string, unknown>)[p.trackBy])}`,
        }}
        header={
          <Header
            variant={p.variant === 'embedded' || p.variant === 'container' ? 'h2' : 'awsui-h1-sticky'}
            counter={p.load.data ? `(${items.length})` : undefined}
            description={p.description}
            actions={
              <SpaceBetween direction="horizontal" size="xs">
                <Button iconName="refresh" ariaLabel={`${t('Refresh')} ${p.title}`} onClick={() => p.load.reload()} />
                {flat(p.actions?.(selected))}
              </SpaceBetween>
            }
          >
            {p.title}
          </Header>
        }
        filter={
          p.filter === false ? undefined : (
            <SpaceBetween size="xs" direction="horizontal">
              <TextFilter
                {...c.filterProps}
                filteringPlaceholder={p.placeholder ?? t('Find')}
                filteringAriaLabel={p.placeholder ?? t('Find')}
                filteringClearAriaLabel={t('Clear')}
                countText={c.filterProps.filteringText ? `${c.filteredItemsCount}` : ''}
              />
              {p.filters}
            </SpaceBetween>
          )
        }
        pagination={
          (c.paginationProps.pagesCount ?? 1) > 1 ? (
            <Pagination {...c.paginationProps} ariaLabels={{ nextPageLabel: t('Next page'), previousPageLabel: t('Previous page'), pageLabel: (n) => `${t('Page')} ${n}` }} />
          ) : undefined
        }
      />
    </SpaceBetween>
  );
}

/** Runs something when asked to; shows that it runs, and how it failed. */
export function useAction() {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const run = async (f: () => Promise<unknown>): Promise<boolean> => {
    setBusy(true);
    setError(null);
    try {
      await f();
      return true;
    } catch (e) {
      setError(e);
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { busy, error, run, clear: () => setError(null) };
}

export interface ConfirmProps {
  title: string;
  children: ReactNode;
  /** What must be typed; none: a click is enough. */
  typed?: string;
  button: string;
  onConfirm: () => Promise<unknown>;
  onClose: (done: boolean) => void;
  disabled?: boolean;
  /** There is a table in it. */
  wide?: boolean;
}

/** A dialog that asks, for consent or for what a form needs, does it, and shows why it failed. */
export function Confirm(p: ConfirmProps) {
  const [text, setText] = useState('');
  const a = useAction();
  const ready = (!p.typed || text === p.typed) && !p.disabled;
  return (
    <Modal
      visible
      size={p.wide ? 'large' : 'medium'}
      header={p.title}
      closeAriaLabel={t('Close')}
      onDismiss={() => p.onClose(false)}
      footer={
        <Box float="right">
          <SpaceBetween direction="horizontal" size="xs">
            <Button variant="link" onClick={() => p.onClose(false)}>
              {t('Cancel')}
            </Button>
            <Button variant="primary" disabled={!ready} loading={a.busy} onClick={() => a.run(p.onConfirm).then((ok) => ok && p.onClose(true))}>
              {p.button}
            </Button>
          </SpaceBetween>
        </Box>
      }
    >
      <SpaceBetween size="m">
        {p.children}
        {p.typed && (
          <FormField label={`${t('To confirm, type')} ${p.typed}`}>
            <Input value={text} onChange={(e) => setText(e.detail.value)} placeholder={p.typed} autoComplete={false} />
          </FormField>
        )}
        <ErrorBox error={a.error} />
      </SpaceBetween>
    </Modal>
  );
}

/** Follows links inside the console without a page load. */
export function useFollow() {
  const navigate = useNavigate();
  return (e: { preventDefault: () => void; detail: { href?: string; external?: boolean } }) => {
    if (e.detail.external || !e.detail.href?.startsWith('/console')) return;
    e.preventDefault();
    navigate(e.detail.href.slice('/console'.length) || '/');
  };
}
