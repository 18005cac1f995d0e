import { describe, expect, it } from 'vitest';
import { keyboardOf } from '../src/portal/keyboards';
import { meaning, type Record, story } from '../src/workspaces/story';

const me = '[S-1-5-21-1-2-3-1107]@[d-1234abcd01]';
let n = 0;
const record = (eventName: string, more: Partial<Record>): Record => ({ eventID: `e${++n}`, eventTime: '2026-11-26T22:35:59Z', eventName, eventSource: 'kms.amazonaws.com', ...more });
const context = (sid: string, volume?: string): { [k: string]: string } => (volume ? { 'aws:workspaces:sid-directoryid': sid, 'aws:ebs:id': volume } : { 'aws:workspaces:sid-directoryid': sid });

// Newest first, as LookupEvents answers.
const records = [
  record('RetireGrant', { eventTime: '2026-11-26T23:00:00Z', requestParameters: { grantId: 'g-ebs' } }),
  record('RetireGrant', { eventTime: '2026-11-26T23:00:00Z', requestParameters: { grantId: 'g-stranger' } }),
  record('Decrypt', { eventTime: '2026-11-26T22:50:00Z', errorCode: 'DisabledException', errorMessage: 'The key is disabled.', requestParameters: { encryptionContext: context(me, 'vol-root') } }),
  record('Decrypt', { requestParameters: { encryptionContext: context('[S-1-5-21-1-2-3-1108]@[d-1234abcd01]', 'vol-root') } }),
  record('Decrypt', { requestParameters: { encryptionContext: context(me, 'vol-of-an-earlier-desktop') } }),
  record('GenerateDataKeyWithoutPlaintext', { userIdentity: { type: 'AWSService', invokedBy: 'ec2.amazonaws.com' }, requestParameters: { encryptionContext: context(me, 'vol-root') } }),
  record('CreateGrant', { requestParameters: { constraints: { encryptionContextSubset: context(me, 'vol-root') } }, responseElements: { grantId: 'g-ebs' } }),
  record('CreateGrant', { userIdentity: { type: 'IAMUser', userName: 'wsadmin', invokedBy: 'workspaces.amazonaws.com' }, requestParameters: { name: 'ws-1', constraints: { encryptionContextSubset: context(me) } }, responseElements: { grantId: 'g-ws' } }),
  record('CreateGrant', { requestParameters: { name: 'ws-0', constraints: { encryptionContextSubset: context(me) } }, responseElements: { grantId: 'g-ws0' } }),
  record('DescribeKey', { requestParameters: {} }),
];

describe('the key story', () => {
  const chapters = story(records, me, ['vol-root', 'vol-user'], 'ws-1');

  it('has what is of this desktop and nothing else, oldest first', () => {
    expect(chapters.map((c) => c.name)).toEqual(['CreateGrant', 'CreateGrant', 'GenerateDataKeyWithoutPlaintext', 'Decrypt', 'RetireGrant']);
    expect(chapters.map((c) => c.grant).filter(Boolean)).toEqual(['g-ws', 'g-ebs', 'g-ebs']);
  });

  it('says who, and tells a refusal from a use', () => {
    expect(chapters[0].who).toBe('wsadmin');
    expect(chapters[2].who).toBe('ec2.amazonaws.com');
    expect(chapters.filter((c) => c.error).map((c) => c.error)).toEqual(['DisabledException: The key is disabled.']);
  });

  it('tells the grant of WorkSpaces from that of EBS', () => {
    expect(meaning(chapters[0])).toContain('this user in this directory');
    expect(meaning(chapters[1])).toContain('this volume only');
  });
});

describe('the keyboard of a language', () => {
  it.each([['ja-JP', 'jp'], ['en-US', 'us'], ['en-GB', 'gb'], ['de', 'de'], ['de-CH', 'ch'], ['pt-BR', 'br'], ['xx', 'us']])('%s is %s', (language, layout) => expect(keyboardOf(language)).toBe(layout));
});
