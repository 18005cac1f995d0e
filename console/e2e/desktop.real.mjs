// A real desktop, from the wizard to a key press in the guest. interop.TestDesktopInBrowser
// starts the server with QEMU behind it; a boot takes minutes.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { connect, createServer } from 'node:net';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
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

// The network between the user's browser and the server: it can fall silent, which is not
// the same as breaking: nothing arrives, and nobody is told.
const network = { silent: false, pairs: new Set() };
const proxy = createServer((a) => {
  const { hostname, port } = new URL(server.url);
  const b = connect(Number(port), hostname);
  const pair = [a, b];
  network.pairs.add(pair);
  const end = () => (network.pairs.delete(pair), a.destroy(), b.destroy());
  for (const [from, to] of [pair, [b, a]]) {
    from.on('data', (d) => to.write(d)).on('error', end).on('close', end);
    if (network.silent) from.pause();
  }
});
const silence = (silent) => {
  network.silent = silent;
  for (const s of [...network.pairs].flat()) silent ? s.pause() : s.resume();
};
await new Promise((r) => proxy.listen(0, '127.0.0.1', r));
after(() => {
  for (const s of [...network.pairs].flat()) s.destroy();
  proxy.close();
});

// What the keys of a keyboard give: [code, modifier, what the browser calls it, what the guest must read].
const LAYOUTS = {
  US: [['Digit2', 'Shift', '@'], ['Quote', '', "'"], ['Semicolon', '', ';'], ['BracketLeft', '', '['], ['Backslash', '', '\\'], ['Backquote', '', '`'], ['KeyY', '', 'y'], ['KeyZ', 'Shift', 'Z']],
  JP: [['Digit2', 'Shift', '"'], ['Quote', '', ':'], ['Quote', 'Shift', '*'], ['Semicolon', 'Shift', '+'], ['BracketLeft', '', '@'], ['BracketRight', '', '['], ['Backslash', '', ']'], ['Equal', '', '^'], ['IntlYen', 'Shift', '|'], ['IntlRo', 'Shift', '_'], ['IntlYen', '', '\\'], ['KeyY', '', 'y']],
  DE: [['Digit2', 'Shift', '"'], ['KeyY', '', 'z'], ['KeyZ', 'Shift', 'Y'], ['BracketLeft', '', 'ü'], ['Semicolon', 'Shift', 'Ö'], ['Quote', '', 'ä'], ['Minus', '', 'ß'], ['IntlBackslash', '', '<'], ['KeyQ', 'AltGraph', '@'], ['KeyE', 'AltGraph', '€']],
  FR: [['KeyQ', '', 'a'], ['KeyA', '', 'q'], ['Digit2', '', 'é'], ['Digit0', '', 'à'], ['Semicolon', '', 'm'], ['Digit3', 'Shift', '3']],
};
const NAMES = { US: 'English (US)', JP: 'Japanese', DE: 'German', FR: 'French' };
const MODIFIERS = { Shift: ['ShiftLeft', 'Shift', 8, 16], AltGraph: ['AltRight', 'AltGraph', 0, 225] };

/** Presses keys as a keyboard of the layout would: the place of the key, and what the browser reads on it. */
async function strike(page, keys) {
  const cdp = await page.context().newCDPSession(page);
  const send = (type, code, key, modifiers, vk) => cdp.send('Input.dispatchKeyEvent', { type, code, key, modifiers, windowsVirtualKeyCode: vk });
  for (const [code, modifier, key] of keys) {
    const [mcode, mkey, bits, mvk] = MODIFIERS[modifier] ?? [];
    if (mcode) await send('rawKeyDown', mcode, mkey, bits, mvk);
    await send('rawKeyDown', code, key, bits ?? 0, 0);
    await send('keyUp', code, key, bits ?? 0, 0);
    if (mcode) await send('keyUp', mcode, mkey, 0, mvk);
    await page.waitForTimeout(60);
  }
  await cdp.detach();
}

/** Types text as on a US keyboard. */
const typeUS = (page, text) => {
  const places = { ' ': 'Space', '-': 'Minus', '=': 'Equal', '[': 'BracketLeft', ']': 'BracketRight', ';': 'Semicolon', "'": 'Quote', '`': 'Backquote', '\\': 'Backslash', ',': 'Comma', '.': 'Period', '/': 'Slash' };
  const shifted = Object.fromEntries([...'_+{}:"~|<>?!@#$%^&*()'].map((c, i) => [c, [..."-=[];'`\\,./1234567890"][i]]));
  return strike(
    page,
    [...text].map((c) => {
      const key = shifted[c] ?? c.toLowerCase();
      const code = places[key] ?? (/\d/.test(key) ? `Digit${key}` : `Key${key.toUpperCase()}`);
      return [code, key === c ? '' : 'Shift', c];
    }),
  );
};

const setLayout = async (page, layout) => {
  await page.getByRole('button', { name: /^Keyboard: / }).click();
  await page.getByRole('menuitemcheckbox', { name: NAMES[layout], exact: true }).click();
  await page.waitForTimeout(4000); // the guest's agent changes it
};

/** The text of the terminal, by the clipboard: select all and copy there, read in the page's panel. */
async function terminalText(page, has) {
  let text = '';
  for (let i = 0; i < 5 && !text.includes(has); i++) {
    await page.keyboard.press('Control+Shift+A');
    await page.waitForTimeout(1500);
    await page.keyboard.press('Control+Shift+C');
    await page.waitForTimeout(2500);
    await page.getByRole('button', { name: 'Clipboard', exact: true }).click();
    text = await page.getByLabel('From the desktop').inputValue();
    await page.getByRole('button', { name: 'Close' }).click();
    await focus(page);
  }
  return text;
}

const focus = (page) => page.evaluate(() => document.querySelector('canvas').focus());
const size = (page) => page.evaluate(() => { const c = document.querySelector('canvas'); return c ? `${c.width}x${c.height}` : ''; });

test('a launch through the wizard, a painted desktop, a key press in the guest', async (t) => {
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

  const direct = server.url;
  const user = await open(`/portal/${server.directoryId}`, { at: `http://127.0.0.1:${proxy.address().port}` });
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

  const run = async (line) => {
    await typeUS(user, line);
    await user.keyboard.press('Enter');
    await user.waitForTimeout(2500);
  };

  await t.test('what the keys of US, Japanese, German and French keyboards give in the guest', async () => {
    await setLayout(user, 'US');
    await focus(user);
    await run('tput sgr0; clear; cat >/dev/null # keys');
    for (const [layout, keys] of Object.entries(LAYOUTS)) {
      await setLayout(user, layout);
      await focus(user);
      await strike(user, keys);
      await user.keyboard.press('Enter');
      await user.waitForTimeout(1500);
    }
    await setLayout(user, 'US');
    await focus(user);
    const lines = (await terminalText(user, LAYOUTS.FR.map((k) => k[2]).join(''))).trim().split('\n').map((l) => l.trim());
    await shot(user, 'desktop-layouts');
    const got = Object.fromEntries(Object.keys(LAYOUTS).map((l, i) => [l, lines[lines.length - 4 + i]]));
    assert.deepEqual(got, Object.fromEntries(Object.entries(LAYOUTS).map(([l, keys]) => [l, keys.map((k) => k[2]).join('')])));
    await user.keyboard.press('Control+c');
  });

  await t.test('the clipboard, both ways, with Japanese text', async () => {
    await run('clear');
    await user.getByRole('button', { name: 'Clipboard', exact: true }).click();
    await user.getByLabel('To the desktop').fill('echo 日本語の名前 山田太郎 ひらがな カタカナ');
    await user.getByRole('button', { name: 'Put it in the clipboard' }).click();
    await user.getByRole('button', { name: 'Close' }).click();
    await focus(user);
    await user.waitForTimeout(3000);
    await user.keyboard.press('Control+Shift+V');
    await user.waitForTimeout(3000);
    await run('');
    const text = await terminalText(user, '\n日本語の名前 山田太郎 ひらがな カタカナ');
    await shot(user, 'desktop-japanese');
    assert.ok(text.includes('\n日本語の名前 山田太郎 ひらがな カタカナ'), `the terminal showed ${JSON.stringify(text)}`);
  });

  await t.test('the guest follows the window', async () => {
    const was = await size(user);
    await user.setViewportSize({ width: 1030, height: 830 });
    await until('a smaller screen', 30_000, async () => (await size(user)) === '1024x768');
    await shot(user, 'desktop-smaller');
    await user.setViewportSize({ width: 1280, height: 900 });
    await until(`${was} again`, 30_000, async () => (await size(user)) === was);
  });

  await t.test('full screen', async () => {
    await user.getByRole('button', { name: 'Full screen' }).click();
    await user.getByRole('button', { name: 'Leave full screen' }).waitFor();
    assert.equal(await user.evaluate(() => document.fullscreenElement?.className), 'desk', 'what is full screen');
    await shot(user, 'desktop-full-screen');
    await user.getByRole('button', { name: 'Leave full screen' }).click();
    await user.getByRole('button', { name: 'Full screen' }).waitFor();
    assert.equal(await user.evaluate(() => document.fullscreenElement), null);
    await focus(user);
  });

  await t.test('a silent network: the page says so, connects again, and the session went on', async () => {
    await run('clear; before=kept$((6*7))');
    const began = Date.now();
    silence(true);
    await user.getByRole('alert').getByText('Reconnecting').waitFor({ timeout: 30_000 });
    const noticed = Date.now() - began;
    assert.ok(noticed > 9_000 && noticed < 20_000, `noticed after ${noticed} ms`);
    await shot(user, 'desktop-silent');
    await user.waitForTimeout(15_000);
    silence(false);
    const back = Date.now();
    await user.getByTestId('meter').getByText(/ms/).waitFor({ timeout: 30_000 });
    console.log(`silence noticed after ${noticed} ms; connected again ${Date.now() - back} ms after the network came back`);
    // noVNC's own word on a connection that could not be closed.
    user.faults = user.faults.filter((f) => f !== 'console: Disconnection timed out.');
    await focus(user);
    await run('echo $before');
    assert.match(await terminalText(user, '\nkept42'), /\nkept42/, 'the shell of before the silence still answers');
  });

  if (process.env.SEALDESK_BENCH) {
    const script = fileURLToPath(new URL('../../bench/relay/desktop.mjs', import.meta.url));
    const bench = promisify(execFile)('node', [script, direct, server.directoryId, server.userName]);
    bench.child.stdin.end(server.userPassword);
    console.log((await bench).stdout);
    await user.getByRole('button', { name: 'Connect again' }).click(); // the other browser took the desktop over
    await user.getByTestId('meter').getByText(/ms/).waitFor();
  }

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
