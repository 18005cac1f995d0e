// The WorkSpaces, directories and volumes pages: every page in every look, and what
// an administrator does there. Desktops are not machines here; interop.TestDesktop
// drives a real one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accessible, console_, healthy, open, server, settled, shot, tour } from './browser.mjs';

test('every page, in every look', async (t) => {
  await tour(t, (look) => console_('/console/workspaces', look), [
    ['workspaces', '/console/workspaces'],
    ['workspace', `/console/workspaces/${server.workspaceId}`, (page) => page.locator('li b', { hasText: 'GenerateDataKeyWithoutPlaintext' }).first().waitFor()],
    ['workspace-launch', '/console/workspaces/launch'],
    ['directories', '/console/directories'],
    ['directory', `/console/directories/${server.directoryId}`],
    ['volumes', '/console/ec2/volumes'],
    ['snapshots', '/console/ec2/snapshots'],
  ]);
});

const next = (page) => page.getByRole('button', { name: 'Next', exact: true }).click();

// Up to the encryption step, for a user who has no desktop.
async function toEncryption(page, user) {
  await page.getByRole('radio', { name: 'corp.example.com' }).check({ force: true });
  await next(page);
  await page.getByRole('checkbox', { name: `Select ${user}` }).check({ force: true });
  await next(page);
  await page.getByRole('radio').first().check({ force: true });
  await next(page);
  await page.getByRole('radio', { name: /AlwaysOn/ }).check({ force: true });
  await next(page);
  await page.getByRole('heading', { name: 'May this key be used?' }).waitFor();
}

const check = (page, id, state) => page.locator(`[data-testid=check-${id}][data-state=${state}]`).waitFor();

test('the launch wizard launches under a key it has looked at', async () => {
  const page = await console_('/console/workspaces/launch');
  await next(page);
  await page.getByText('Choose a directory.', { exact: true }).waitFor();
  await toEncryption(page, 'kenji');
  await page.getByRole('combobox', { name: 'Encryption key' }).fill(`arn:aws:kms:${server.region}:${server.account}:key/${server.keyId}`);
  for (const id of ['found', 'symmetric', 'enabled', 'grant', 'room']) await check(page, id, 'ok');
  await page.keyboard.press('Escape');
  await shot(page, 'workspace-launch-encryption');
  await accessible(page, 'encryption step');
  await next(page);
  await shot(page, 'workspace-launch-review');
  await accessible(page, 'review step');
  await page.getByRole('button', { name: 'Launch WorkSpaces' }).click();
  await page.getByRole('heading', { name: /^ws-/ }).waitFor();
  const id = new URL(page.url()).pathname.split('/').pop();
  await page.getByText('AVAILABLE').first().waitFor({ timeout: 60_000 });
  // The key story, with the context of this user.
  await page.getByText('WorkSpaces may use the key for this user in this directory only').first().waitFor();
  for (const name of ['CreateGrant', 'GenerateDataKeyWithoutPlaintext', 'Decrypt']) await page.locator('li b', { hasText: name }).first().waitFor();
  // Delete it again: the name must be typed.
  await page.getByRole('button', { name: 'Actions' }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  const sure = page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true });
  assert.equal(await sure.isDisabled(), true, 'the button before the ID is typed');
  await accessible(page, 'delete dialog');
  await page.getByPlaceholder(id).fill(id);
  await sure.click();
  await page.getByRole('heading', { name: /^WorkSpaces/ }).first().waitFor();
  await page.getByRole('link', { name: id }).waitFor({ state: 'detached', timeout: 60_000 });
  await healthy(page);
  await page.context().close();
});

test('the encryption step says what is wrong with a key, and which statement is missing', async () => {
  const page = await console_('/console/workspaces/launch', { user: server.operator.name, password: server.operator.password });
  await toEncryption(page, 'kenji');
  const key = page.getByRole('combobox', { name: 'Encryption key' });
  await key.fill(`arn:aws:kms:${server.region}:${server.account}:key/${server.keyId}`);
  await check(page, 'grant', 'no');
  const statement = JSON.parse(await page.getByTestId('missing-statement').innerText());
  assert.deepEqual(statement.Statement, [{ Effect: 'Allow', Action: 'kms:CreateGrant', Resource: `arn:aws:kms:${server.region}:${server.account}:key/${server.keyId}` }]);
  await shot(page, 'workspace-launch-refused');
  await accessible(page, 'a key that may not be used');
  await key.fill(`arn:aws:kms:${server.region}:${server.account}:key/${server.asymmetricKeyId}`);
  await check(page, 'symmetric', 'no');
  await next(page);
  await page.getByText('This key cannot encrypt the volumes of a WorkSpace. Choose another.', { exact: true }).waitFor();
  await key.fill(`arn:aws:kms:${server.region}:${server.account}:key/00000000-0000-0000-0000-000000000000`);
  await check(page, 'found', 'no');
  await healthy(page);
  await page.context().close();
});

test('a user is created, disabled and deleted; the clipboard is switched off', async () => {
  const page = await console_(`/console/directories/${server.directoryId}`);
  await page.getByRole('button', { name: 'Create user' }).first().click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('User name').fill('temp');
  await dialog.getByLabel('Password').fill('short');
  await dialog.getByRole('button', { name: 'Create user' }).click();
  await dialog.getByText(/InvalidPassword|password/i).first().waitFor();
  await dialog.getByLabel('Password').fill('Long-enough-7');
  await dialog.getByRole('button', { name: 'Create user' }).click();
  await dialog.waitFor({ state: 'detached' });
  await page.getByRole('radio', { name: 'Select temp' }).check({ force: true });
  await page.getByRole('button', { name: 'Actions' }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await page.getByPlaceholder('temp').fill('temp');
  await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
  await page.getByRole('radio', { name: 'Select temp' }).waitFor({ state: 'detached' });

  const clip = page.getByRole('checkbox', { name: 'Clipboard: text may be copied from desktops' });
  await clip.click({ force: true });
  await page.waitForFunction(() => [...document.querySelectorAll('input[type=checkbox]')].some((i) => !i.checked && !i.disabled && i.closest('label, div')?.textContent?.includes('copied from desktops')));
  await page.reload();
  await settled(page);
  assert.equal(await clip.isChecked(), false, 'the clipboard switch after a reload');
  await clip.click({ force: true });
  await healthy(page);
  await page.context().close();
});

test('the portal, in every look', async (t) => {
  await tour(t, (look) => open('/portal/', look), [['portal-sign-in', '/portal/']]);
  const page = await open(`/portal/${server.directoryId}`, { language: 'en' });
  await page.getByLabel('User name').fill(server.userName);
  await page.getByLabel('Password').fill('wrong');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('You are not signed in').waitFor();
  await page.getByLabel('Password').fill(server.userPassword);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'My desktops' }).waitFor();
  await page.getByText(server.workspaceId).waitFor();
  await shot(page, 'portal-desktops');
  await accessible(page, 'desktops of the portal');
  await healthy(page);
  await page.context().close();
});
