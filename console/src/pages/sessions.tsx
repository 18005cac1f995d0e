import Badge from '@cloudscape-design/components/badge';
import Button from '@cloudscape-design/components/button';
import { t } from '../lib/i18n';
import { type ConsoleSession, listSessions, revokeSession } from '../lib/session';
import { Empty, List, time, useAction, useLoad, useNote } from '../lib/ui';

export default function Sessions() {
  const load = useLoad(listSessions, []);
  const a = useAction();
  const note = useNote();
  const end = (s: ConsoleSession) =>
    a.run(() => revokeSession(s.id)).then((ok) => {
      note(ok ? { type: 'success', content: t('The session was ended: its credentials are refused from now on.') } : { type: 'error', content: t('The session was not ended.') });
      load.reload();
    });
  return (
    <List
      title={t('Sessions')}
      description={t('Where you are signed in to this console. The root user sees those of all users of the account.')}
      load={load}
      trackBy="id"
      text={(s) => `${s.arn} ${s.sourceIp} ${s.userAgent}`}
      empty={<Empty title={t('No sessions')} />}
      columns={[
        { id: 'arn', header: t('User'), cell: (s) => <>{s.arn.split(':').pop()} {s.current && <Badge color="blue">{t('this one')}</Badge>}</>, isRowHeader: true },
        { id: 'ip', header: t('Source IP address'), cell: (s) => s.sourceIp },
        { id: 'agent', header: t('Browser'), cell: (s) => s.userAgent },
        { id: 'created', header: t('Signed in'), cell: (s) => time(s.created) },
        { id: 'used', header: t('Last renewed'), cell: (s) => time(s.lastUsed) },
        { id: 'end', header: t('Action'), cell: (s) => <Button variant="inline-link" loading={a.busy} ariaLabel={`${t('End session')} ${s.id}`} disabled={s.current} onClick={() => end(s)}>{t('End session')}</Button> },
      ]}
    />
  );
}
