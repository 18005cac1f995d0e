import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accessible, console_, done, healthy, LOOKS, open, server, settled, shot } from './browser.mjs';

test('the sign-in page, in every look', async () => {
  for (const look of LOOKS) {
    const page = await open('/console/', look);
    await page.getByTestId('sign-in').waitFor();
    await settled(page);
    await shot(page, `sign-in-${look.name}`);
    await accessible(page, 'sign-in');
    await healthy(page);
    await page.context().close();
  }
});

test('a wrong password is refused with the reason and a request ID', async () => {
  const page = await open('/console/');
  await page.locator('input[name=account]').fill(server.account);
  await page.locator('input[name=username]').fill(server.admin.name);
  await page.locator('input[name=password]').fill('not-the-password');
  await page.getByTestId('sign-in').click();
  await page.getByText('You are not signed in').waitFor();
  await page.getByText(/Request ID: [0-9a-f-]{36}/).waitFor();
  await accessible(page, 'sign-in, refused');
  await done(page);
});

test('a session lives through a reload, keeps no credentials in storage, and ends at sign-out', async () => {
  const page = await console_();
  await page.reload();
  await page.getByRole('heading', { name: 'Welcome to Sealdesk' }).waitFor();
  const kept = await page.evaluate(() => JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.cookie);
  assert.doesNotMatch(kept, /ASIA|secret|token/i);
  await page.getByRole('button', { name: /^Account:/ }).first().click();
  await page.getByRole('menuitem', { name: 'Sign out' }).click();
  await page.getByTestId('sign-in').waitFor();
  await page.reload();
  await page.getByTestId('sign-in').waitFor();
  await done(page);
});
