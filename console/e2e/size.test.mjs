// The first load of the sign-in page and of a list, with an empty cache. Time is only held against
// it when asked (scripts/console-size): a test machine may be busy.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { console_, open, server } from './browser.mjs';

async function measure(name, page, path, ready) {
  const wire = await page.context().newCDPSession(page);
  await wire.send('Network.enable');
  let bytes = 0;
  let requests = 0;
  wire.on('Network.loadingFinished', (e) => {
    bytes += e.encodedDataLength;
    requests++;
  });
  const times = [];
  for (let i = 0; i < 5; i++) {
    await wire.send('Network.clearBrowserCache');
    [bytes, requests] = [0, 0];
    const start = performance.now();
    await page.goto(server.url + path, { waitUntil: 'commit' });
    await ready();
    times.push(performance.now() - start);
    await page.waitForLoadState('networkidle');
  }
  await page.context().close();
  const median = times.sort((a, b) => a - b)[2];
  console.log(`${name}: ${(bytes / 1000).toFixed(0)} kB in ${requests} requests, usable after ${(median / 1000).toFixed(2)} s (median of 5)`);
  assert.ok(bytes > 50_000, `${name}: ${bytes} bytes measured`);
  assert.ok(bytes < 1e6, `${name} loads ${bytes} bytes, more than 1 MB`);
  if (process.env.CONSOLE_TIMES) assert.ok(median < 1500, `${name} is usable after ${median} ms, more than 1.5 s`);
}

test('the sign-in page', async () => {
  const page = await open('/console/');
  await measure('sign-in page', page, '/console/', () => page.getByTestId('sign-in').waitFor());
});

test('a list', async () => {
  const page = await console_('/console/');
  await measure('list of customer managed keys', page, '/console/kms/customer', () => page.getByRole('link', { name: 'finance-desktops' }).waitFor());
});
