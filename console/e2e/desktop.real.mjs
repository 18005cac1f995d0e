// A real desktop, from the wizard to a key press in the guest. interop.TestDesktopInBrowser
// starts the server with QEMU behind it; a boot takes minutes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CloudTrailClient, LookupEventsCommand } from '@aws-sdk/client-cloudtrail';
import { accessible, console_, healthy, open, server, shot } from './browser.mjs';

const BOOT = 10 * 60_000;
const keyArn = `arn:aws:kms:${server.region}:${server.account}:key/${server.keyId}`;
const trail = new CloudTrailClient({ region: server.region, endpoint: server.url, credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey } });
const events = async (AttributeKey, AttributeValue) => (await trail.send(new LookupEventsCommand({ LookupAttributes: [{ AttributeKey, AttributeValue }], MaxResults: 50 }))).Events.map((e) => JSON.parse(e.CloudTrailEvent));

// The share of green pixels, of the desktop in the page or of QEMU's own screendump.
const green = (page, what) =>
  page.evaluate((selector) => {
    const from = document.querySelector(selector);
    const c = document.createElement('canvas');
    c.width = from.naturalWidth || from.width;
    c.height = from.naturalHeight || from.height;
    if (c.width < 2) return 0;
    const g = c.getContext('2d');
    g.drawImage(from, 0, 0);
    const { data } = g.getImageData(0, 0, c.width, c.height);
    let n = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i + 1] > 140 && data[i] < 110 && data[i + 2] < 110) n++;
    return n / (data.length / 4);
  }, what);

const until = async (what, most, f) => {
  for (const end = Date.now() + most; !(await f()); await new Promise((r) => setTimeout(r, 1000))) assert.ok(Date.now() < end, `not within ${most / 1000} s: ${what}`);
};

test('a launch through the wizard, a painted desktop, a key press in the guest', async () => {
  const admin = await console_('/console/workspaces/launch');
  const next = () => admin.getByRole('button', { name: 'Next', exact: true }).click();
  await admin.getByRole('radio', { name: 'corp.example.com' }).check({ force: true });
  await next();
  await admin.getByRole('checkbox', { name: `Select ${server.userName}` }).check({ force: true });
  await next();
  await admin.getByRole('radio', { name: /Standard/ }).first().check({ force: true });
  await next();
  await next();
  await admin.getByRole('combobox', { name: 'Encryption key' }).fill(keyArn);
  await admin.locator('[data-testid=check-grant][data-state=ok]').waitFor();
  await admin.keyboard.press('Escape');
  await next();
  await admin.getByRole('button', { name: 'Launch WorkSpaces' }).click();
  await admin.getByRole('heading', { name: /^ws-/ }).waitFor();
  const id = new URL(admin.url()).pathname.split('/').pop();
  await admin.getByText('AVAILABLE').first().waitFor({ timeout: BOOT });

  const user = await open(`/portal/${server.directoryId}`);
  await user.getByLabel('User name').fill(server.userName);
  await user.getByLabel('Password').fill(server.userPassword);
  await user.getByRole('button', { name: 'Sign in' }).click();
  await user.getByRole('button', { name: /^Connect/ }).click();
  await until('the desktop is painted', 30_000, () =>
    user.evaluate(() => {
      const c = document.querySelector('canvas');
      return !!c && c.width > 600 && c.getContext('2d').getImageData(c.width >> 1, c.height - 8, 1, 1).data[0] > 200; // the panel is light
    }),
  );
  await accessible(user, 'the desktop in the page');
  assert.ok((await green(user, 'canvas')) < 0.01, 'green before anything was typed');

  // A terminal that turns green when the guest has run what the browser typed. A busy
  // machine may be slow to open it, so it is tried again.
  await user.locator('canvas').click({ position: { x: 600, y: 400 } });
  let painted = false;
  for (let i = 1; i <= 4 && !painted; i++) {
    await user.keyboard.press('Control+Alt+t');
    await user.waitForTimeout(12_000 * i);
    // type() does not press Shift, and the keyboard of this browser's language is British: only keys that are the same there.
    await user.keyboard.type('tput setab 2; clear\n', { delay: 80 });
    painted = await until('green', 25_000, async () => (await green(user, 'canvas')) > 0.05).then(() => true, () => false);
  }
  assert.ok(painted, 'what was typed in the browser shows on the canvas');
  await shot(user, 'desktop-typed');
  // The control: QEMU's own picture of the screen, as the administrator sees it.
  await until('the screendump is green too', 30_000, async () => (await admin.locator('img[alt^="Screen of"]').count()) > 0 && (await green(admin, 'img[alt^="Screen of"]')) > 0.05);
  await shot(admin, 'workspace-live');

  // What the record says of it.
  const connects = await events('EventName', 'DesktopConnect');
  assert.ok(connects.some((e) => e.additionalEventData.workspaceId === id && e.additionalEventData.userName === server.userName), 'DesktopConnect is recorded with the user');
  const context = connects[0].additionalEventData.sidDirectoryId;
  const uses = (await events('ResourceName', keyArn)).filter((e) => e.requestParameters?.encryptionContext?.['aws:workspaces:sid-directoryid'] === context);
  for (const name of ['GenerateDataKeyWithoutPlaintext', 'Decrypt']) assert.equal(uses.filter((e) => e.eventName === name && !e.errorCode).length, 2, `${name}, one for each volume, with the context of the user`);

  // A stop cuts the connection at once, and says why.
  await admin.getByRole('button', { name: 'Actions' }).click();
  await admin.getByRole('menuitem', { name: 'Stop' }).click();
  await admin.getByRole('dialog').getByRole('button', { name: 'Stop', exact: true }).click();
  const began = Date.now();
  await user.getByRole('alert').getByText(/STOPPING/).waitFor({ timeout: 10_000 });
  console.log(`the page said so ${Date.now() - began} ms after the click on Stop`);
  await healthy(user);
  await healthy(admin);
});
