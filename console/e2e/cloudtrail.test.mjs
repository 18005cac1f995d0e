import assert from 'node:assert/strict';
import { test } from 'node:test';
import { console_, done, server, settled, tour } from './browser.mjs';

test('event history: one attribute at a time, and the record of a use of the key with its encryption context', async () => {
  const page = await console_('/console/cloudtrail');
  await page.getByRole('link', { name: 'CreateKey' }).first().waitFor();
  assert.equal(await page.getByRole('link', { name: 'GenerateDataKeyWithoutPlaintext' }).count(), 0, 'read-only events are left out at first');
  await page.getByRole('button', { name: /Lookup attribute/ }).click();
  await page.getByRole('option', { name: 'Event name' }).click();
  await page.getByRole('searchbox', { name: 'Value' }).fill('GenerateDataKeyWithoutPlaintext');
  await page.keyboard.press('Enter');
  const rows = page.getByRole('link', { name: 'GenerateDataKeyWithoutPlaintext' });
  await settled(page);
  assert.equal(await rows.count(), 2, 'one for each volume of the desktop');
  await rows.first().click();
  await page.getByText('aws:workspaces:sid-directoryid').first().waitFor();
  await page.getByText(new RegExp(`\\[S-1-5-21-.*\\]@\\[${server.directoryId}\\]`)).first().waitFor();
  const record = JSON.parse(await page.locator('pre, [class*="awsui_pre-variant"]').first().innerText());
  assert.equal(record.eventName, 'GenerateDataKeyWithoutPlaintext');
  assert.match(record.requestParameters.encryptionContext['aws:ebs:id'], /^vol-/);
  await done(page);
});

test('the CloudTrail pages in every look', async (t) => {
  await tour(t, (look) => console_('/console/', look), [
    ['cloudtrail', '/console/cloudtrail'],
    ['cloudtrail-record', '/console/cloudtrail?by=EventName&value=CreateKey', async (page) => page.getByRole('link', { name: 'CreateKey' }).first().click()],
  ]);
});
