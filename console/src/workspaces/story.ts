// The key story of a desktop: what CloudTrail knows of its key, for this desktop
// alone. An event belongs to it when its encryption context (of the use, or of the
// grant) names this user of this directory, or when it retires such a grant.

import { LookupEventsCommand, type LookupEventsCommandOutput } from '@aws-sdk/client-cloudtrail';
import { cloudtrail, pages } from '../lib/clients';

export const CONTEXT = 'aws:workspaces:sid-directoryid';
export const VOLUME = 'aws:ebs:id';

/** The part of a CloudTrail record that the story needs. */
export interface Record {
  eventID: string;
  eventTime: string;
  eventName: string;
  eventSource: string;
  errorCode?: string;
  errorMessage?: string;
  userIdentity?: { type?: string; arn?: string; userName?: string; invokedBy?: string };
  requestParameters?: { [k: string]: unknown; encryptionContext?: { [k: string]: string }; constraints?: { encryptionContextSubset?: { [k: string]: string } }; grantId?: string; granteePrincipal?: string } | null;
  responseElements?: { grantId?: string } | null;
}

export interface Chapter {
  id: string;
  time: Date;
  name: string;
  who: string;
  /** The encryption context of the use or of the grant. */
  context: { [k: string]: string };
  volume: string;
  grant: string;
  grantee: string;
  error: string;
  record: Record;
}

/** Only the chapters of one desktop, oldest first. */
export function story(records: Record[], sidDirectoryId: string, volumes: string[], workspaceId: string): Chapter[] {
  const grants = new Set<string>();
  const chapters: Chapter[] = [];
  // LookupEvents answers newest first, and within a second in the order of the log.
  for (const r of records.toReversed().sort((a, b) => a.eventTime.localeCompare(b.eventTime))) {
    const p = r.requestParameters ?? {};
    const context = p.encryptionContext ?? p.constraints?.encryptionContextSubset ?? {};
    const grant = r.responseElements?.grantId ?? p.grantId ?? '';
    // A user who has a desktop for a second time has the same context: the volumes, and the grant's name, tell which is which.
    const volume = context[VOLUME] ?? '';
    const ours = context[CONTEXT] === sidDirectoryId && (volume ? volumes.length === 0 || volumes.includes(volume) : p.name === undefined || p.name === workspaceId);
    if (!ours && !grants.has(grant)) continue;
    if (grant) grants.add(grant);
    chapters.push({
      id: r.eventID,
      time: new Date(r.eventTime),
      name: r.eventName,
      who: r.userIdentity?.invokedBy && r.userIdentity.type === 'AWSService' ? r.userIdentity.invokedBy : (r.userIdentity?.userName ?? r.userIdentity?.arn ?? r.userIdentity?.invokedBy ?? r.userIdentity?.type ?? ''),
      context,
      volume,
      grant,
      grantee: p.granteePrincipal ?? '',
      error: r.errorCode ? `${r.errorCode}: ${r.errorMessage ?? ''}` : '',
      record: r,
    });
  }
  return chapters;
}

/** The records that name a resource, newest first. */
export async function recordsOf(region: string, resource: string, most = 1000): Promise<Record[]> {
  const c = await cloudtrail(region);
  const events = await pages(
    (NextToken): Promise<LookupEventsCommandOutput> => c.send(new LookupEventsCommand({ LookupAttributes: [{ AttributeKey: 'ResourceName', AttributeValue: resource }], MaxResults: 50, NextToken })),
    (o) => o.Events,
    (o) => o.NextToken,
    most,
  );
  return events.flatMap((e) => (e.CloudTrailEvent ? [JSON.parse(e.CloudTrailEvent) as Record] : []));
}

/** What a chapter means, for somebody who does not know the API. */
export function meaning(c: Chapter): string {
  switch (c.name) {
    case 'CreateGrant':
      return c.volume ? 'EBS may use the key for this volume only' : 'WorkSpaces may use the key for this user in this directory only';
    case 'GenerateDataKeyWithoutPlaintext':
      return 'A data key was made for the volume; only its encrypted form left KMS';
    case 'Decrypt':
      return 'The volume was attached: KMS opened its data key, kept in memory only';
    case 'RetireGrant':
    case 'RevokeGrant':
      return 'A grant ended: the key can no longer be used under it';
    default:
      return '';
  }
}
