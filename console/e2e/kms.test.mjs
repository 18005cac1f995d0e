// MISSION B, part 1, by console; and the rest of the KMS pages.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { accessible, console_, done, server, tour } from './browser.mjs';

const require = createRequire(import.meta.url);
const { KMSClient, GetKeyPolicyCommand, CreateKeyCommand, DescribeKeyCommand, ListAliasesCommand, ListResourceTagsCommand } = require('@aws-sdk/client-kms');
const { CloudTrailClient, LookupEventsCommand } = require('@aws-sdk/client-cloudtrail');

const config = { region: server.region, endpoint: server.url, credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey } };
const kms = new KMSClient(config);
const trail = new CloudTrailClient(config);
const arn = (what) => `arn:aws:iam::${server.account}:${what}`;

test('an administrator adds key users: every step of the KMS console', async () => {
  const page = await console_('/console/', { region: 'us-east-1' });

  // Pick the Region, open the KMS console, Customer managed keys.
  await page.getByRole('button', { name: /^Region:/ }).first().click();
  await page.getByRole('menuitem', { name: /US West \(Oregon\)/ }).click();
  await page.getByRole('link', { name: 'Key Management Service', exact: true }).first().click();
  await page.getByRole('heading', { name: /Customer managed keys/ }).waitFor();

  // Choose the key by its alias; the Key policy tab.
  await page.getByRole('searchbox', { name: /Find keys/ }).fill('finance');
  await page.getByRole('link', { name: 'finance-desktops' }).click();
  await page.getByRole('tab', { name: 'Key policy' }).click();

  // Key users, Add, choose a user and a role, add.
  await page.getByRole('button', { name: 'Add: Key users' }).click();
  const dialog = page.getByRole('dialog', { name: 'Add key users' });
  await dialog.getByRole('checkbox', { name: 'Select wendy' }).check();
  await dialog.getByRole('checkbox', { name: 'Select desktop-operators' }).check();
  await accessible(page, 'add key users');
  await dialog.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByText('The key policy is saved.').waitFor();
  await page.getByRole('table', { name: 'Key users' }).getByText('wendy').waitFor();
  await page.getByRole('table', { name: 'Key users' }).getByText('desktop-operators').waitFor();

  // What GetKeyPolicy says, and CloudTrail.
  const { Policy } = await kms.send(new GetKeyPolicyCommand({ KeyId: server.keyId }));
  const statements = JSON.parse(Policy).Statement;
  const who = [arn('user/wendy'), arn('role/desktop-operators')].sort();
  for (const sid of ['Allow use of the key', 'Allow attachment of persistent resources']) {
    const s = statements.find((x) => x.Sid === sid);
    assert.deepEqual([...s.Principal.AWS].sort(), who, sid);
  }
  assert.deepEqual(statements.find((x) => x.Sid === 'Allow attachment of persistent resources').Condition, { Bool: { 'kms:GrantIsForAWSResource': 'true' } });
  const { Events } = await trail.send(new LookupEventsCommand({ LookupAttributes: [{ AttributeKey: 'EventName', AttributeValue: 'PutKeyPolicy' }] }));
  const record = JSON.parse(Events[0].CloudTrailEvent);
  assert.equal(record.userIdentity.userName, server.admin.name);
  assert.equal(record.awsRegion, 'us-west-2');
  assert.equal(record.errorCode, undefined);
  assert.match(record.requestParameters.policy, /user\/wendy/);
  assert.match(record.requestParameters.keyId, new RegExp(server.keyId));
  assert.match(record.userAgent, /Mozilla/);

  // Not in another Region.
  await page.getByRole('button', { name: /^Region:/ }).first().click();
  await page.getByRole('menuitem', { name: /US East \(N. Virginia\)/ }).click();
  await page.getByText('NotFoundException').first().waitFor();
  await page.getByText(/Request ID: /).first().waitFor();
  await done(page);
});

test('the policy view refuses what is not a policy, with its place, and shows why the server refuses another', async () => {
  const page = await console_(`/console/kms/keys/${server.keyId}`);
  await page.getByRole('button', { name: 'Switch to policy view' }).click();
  await page.getByRole('button', { name: 'Edit', exact: true }).click();
  const box = page.getByRole('textbox', { name: 'Policy document' });
  const before = await box.inputValue();
  await box.fill('{\n  "Version": "2012-10-17",\n  "Statement": [,]\n}');
  await page.getByText(/Line 3, column 17: a value is expected here/).waitFor();
  assert.ok(await page.getByRole('button', { name: 'Save changes' }).isDisabled());
  await box.fill(before.replaceAll('user/wendy', 'user/nobody-at-all').replaceAll(':root"', ':user/nobody-at-all"'));
  await page.getByRole('button', { name: 'Save changes' }).click();
  await page.getByText('The key policy is not saved').waitFor();
  await page.getByText(/MalformedPolicyDocumentException/).waitFor();
  await done(page);
});

test('the wizard makes a key with its alias, tags, administrators and users', async () => {
  const page = await console_('/console/kms/create');
  const next = () => page.getByRole('button', { name: 'Next' }).click();
  await next();
  await next();
  await page.getByText('Give the key an alias.').waitFor();
  await page.getByRole('textbox', { name: 'Alias' }).fill('made-in-browser');
  await page.getByRole('button', { name: 'Add tag' }).click();
  await page.getByRole('textbox', { name: 'Tag key 1' }).fill('team');
  await page.getByRole('textbox', { name: 'Tag value 1' }).fill('finance');
  await next();
  await page.getByRole('checkbox', { name: 'Select priya' }).check();
  await next();
  await page.getByRole('checkbox', { name: 'Select marcus' }).check();
  await next();
  await page.getByRole('button', { name: 'Finish' }).click();
  await page.getByRole('heading', { name: 'made-in-browser' }).waitFor();
  const { Aliases } = await kms.send(new ListAliasesCommand({}));
  const KeyId = Aliases.find((x) => x.AliasName === 'alias/made-in-browser').TargetKeyId;
  const policy = JSON.parse((await kms.send(new GetKeyPolicyCommand({ KeyId }))).Policy);
  assert.deepEqual(policy.Statement.find((s) => s.Sid === 'Allow access for Key Administrators').Principal, { AWS: arn('user/priya') });
  assert.deepEqual(policy.Statement.find((s) => s.Sid === 'Allow use of the key').Principal, { AWS: arn('user/marcus') });
  assert.deepEqual((await kms.send(new ListResourceTagsCommand({ KeyId }))).Tags, [{ TagKey: 'team', TagValue: 'finance' }]);
  await done(page);
});

test('before a key is deleted, the console shows what it will hit, and asks for its name', async () => {
  const page = await console_(`/console/kms/keys/${server.keyId}`);
  await page.getByRole('button', { name: 'Key actions' }).click();
  await page.getByRole('menuitem', { name: 'Schedule key deletion' }).click();
  const dialog = page.getByRole('dialog', { name: 'Schedule key deletion' });
  await dialog.getByText(server.workspaceId).waitFor();
  await dialog.getByText(/Keeps running until it is stopped/).waitFor();
  assert.equal(await dialog.getByText(/^Volume vol-/).count(), 2);
  const button = dialog.getByRole('button', { name: 'Schedule key deletion' });
  assert.ok(await button.isDisabled());
  await accessible(page, 'schedule key deletion');
  await dialog.getByRole('textbox', { name: /To confirm/ }).fill('finance-desktops');
  assert.ok(await button.isEnabled());
  await dialog.getByRole('button', { name: 'Cancel', exact: true }).click();

  // A key that protects nothing: deletion scheduled, cancelled, the key enabled again.
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({ Description: 'to be deleted' }));
  const state = async () => (await kms.send(new DescribeKeyCommand({ KeyId: KeyMetadata.KeyId }))).KeyMetadata.KeyState;
  await page.goto(`${server.url}/console/kms/keys/${KeyMetadata.KeyId}`);
  const act = async (name) => {
    await page.getByRole('button', { name: 'Key actions' }).click();
    await page.getByRole('menuitem', { name, exact: true }).click();
  };
  await act('Schedule key deletion');
  await dialog.getByText('No desktop, volume, snapshot').waitFor();
  await dialog.getByRole('spinbutton').fill('7');
  await dialog.getByRole('textbox', { name: /To confirm/ }).fill(KeyMetadata.KeyId);
  await button.click();
  await page.getByText(/The key will be deleted on/).waitFor();
  assert.equal(await state(), 'PendingDeletion');
  await act('Cancel key deletion');
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel key deletion' }).click();
  await page.getByText(/The deletion is cancelled/).waitFor();
  assert.equal(await state(), 'Disabled');
  await act('Enable');
  await page.getByRole('dialog').getByRole('button', { name: 'Enable' }).click();
  await page.getByText('The key is enabled.').waitFor();
  assert.equal(await state(), 'Enabled');
  await done(page);
});

test('the KMS pages in every look', async (t) => {
  const key = `/console/kms/keys/${server.keyId}`;
  await tour(t, (look) => console_('/console/', look), [
    ['home', '/console/'],
    ['kms-customer-keys', '/console/kms/customer'],
    ['kms-aws-keys', '/console/kms/managed'],
    ['kms-create', '/console/kms/create'],
    ['kms-key-policy', key],
    ['kms-key-policy-view', key, async (page) => page.getByRole('button', { name: /Switch to policy view|ポリシービューへの切り替え/ }).click()],
    ['kms-key-crypto', `${key}?tab=crypto`],
    ['kms-key-tags', `${key}?tab=tags`],
    ['kms-key-rotation', `${key}?tab=rotation`],
    ['kms-key-aliases', `${key}?tab=aliases`],
    ['kms-key-grants', `${key}?tab=grants`],
    ['sessions', '/console/sessions'],
  ]);
});
