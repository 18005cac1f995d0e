// What the browser tests share: a browser, signed-in pages that note every breach
// of the content security policy, every foreign request and every error, axe, and
// screenshots. The Go test interop.TestConsole starts the server and says where it
// is by SEALDESK_CONSOLE, JSON.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

/** Where the server is, and what the Go test made in it. */
export const server = JSON.parse(process.env.SEALDESK_CONSOLE ?? 'null');
if (!server) throw new Error('run these tests with: go test ./interop -run TestConsole');

export const WIDE = { width: 1280, height: 900 };
export const NARROW = { width: 390, height: 844 };

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const shots = fileURLToPath(new URL('../../build/console-screenshots/', import.meta.url));
mkdirSync(shots, { recursive: true });

let launched;
const browser = () =>
  (launched ??= chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'],
  }));
after(async () => (await launched)?.close());

/**
 * Opens a page of the server, in a browser profile of its own. `page.faults` collects what must
 * not happen; `healthy(page)` asserts that it did not. `at` is another way to the server.
 */
export async function open(path, { language = 'en', dark = false, viewport = WIDE, region = server.region, at = server.url } = {}) {
  const context = await (await browser()).newContext({ viewport, locale: language === 'ja' ? 'ja-JP' : 'en-GB', colorScheme: dark ? 'dark' : 'light', reducedMotion: 'reduce', permissions: ['clipboard-read', 'clipboard-write'] });
  await context.addInitScript(
    ([l, r]) => {
      localStorage.getItem('sealdesk.language') ?? localStorage.setItem('sealdesk.language', l);
      localStorage.getItem('sealdesk.region') ?? localStorage.setItem('sealdesk.region', r);
    },
    [language, region],
  );
  const page = await context.newPage();
  page.setDefaultTimeout(60_000); // machines are slow at times
  page.faults = [];
  page.on('pageerror', (e) => page.faults.push(`error: ${e.message}`));
  page.on('console', (m) => {
    // An answer that is an error is for the page to show, and its test to expect.
    if ((m.type() === 'error' && !m.text().startsWith('Failed to load resource')) || m.text().includes('Content Security Policy')) page.faults.push(`console: ${m.text().replace(/data:[^']{80,}/, 'data:...').slice(0, 400)}`);
  });
  page.asking = 0;
  page.on('requestfinished', () => page.asking--);
  page.on('requestfailed', () => page.asking--);
  page.on('request', (r) => {
    page.asking++;
    const u = new URL(r.url());
    if (u.protocol !== 'data:' && u.protocol !== 'blob:' && u.host !== new URL(at).host) page.faults.push(`foreign request: ${r.url()}`);
  });
  await page.goto(at + path);
  return page;
}

/** A console page, signed in: by default as the administrator that the Go test made. */
export async function console_(path = '/console/', options = {}) {
  const page = await open(path, options);
  await page.locator('input[name=account]').fill(server.account);
  await page.locator('input[name=username]').fill(options.user ?? server.admin.name);
  await page.locator('input[name=password]').fill(options.password ?? server.admin.password);
  await page.getByTestId('sign-in').click();
  await page.locator('#top').waitFor();
  return page;
}

export async function healthy(page) {
  assert.deepEqual(page.faults, [], 'breaches of the CSP, foreign requests and errors');
}

/** The end of a test: healthy, and the page closed, whose work would cost the next one its time. */
export async function done(page) {
  await healthy(page);
  await page.context().close();
}

/** Waits until nothing has been asked of the server, and nothing has been loading, for a while. */
export async function settled(page, quiet = 400) {
  const deadline = Date.now() + 30_000;
  for (let since = Date.now(); Date.now() - since < quiet && Date.now() < deadline; await page.waitForTimeout(50)) {
    if (page.asking > 0 || (await page.locator('[class*="awsui_spinner"]').count()) > 0) since = Date.now();
  }
}

/** axe, with the rules of WCAG 2.1 AA; evaluated by the debugger, so that the CSP stays as it is. */
export async function accessible(page, name) {
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }));
  // Cloudscape's own: its narrow toolbar is a nav that has an orientation.
  for (const v of found.violations) v.nodes = v.nodes.filter((n) => !(v.id === 'aria-allowed-attr' && n.html.includes('awsui_mobile-toolbar-nav')));
  const say = found.violations.filter((v) => v.nodes.length).map((v) => `${v.id} (${v.impact}): ${v.help}\n${v.nodes.slice(0, 4).map((n) => `    ${n.target.join(' ')}: ${n.html.slice(0, 200)}`).join('\n')}`);
  assert.equal(say.length, 0, `axe on ${name}:\n${say.join('\n')}`);
}

export const shot = async (page, name) => {
  await page.screenshot({ path: `${shots}${name}.png`, fullPage: false });
};

/** The four looks in which every page is kept: both languages, light and dark, wide and narrow. */
export const LOOKS = [
  { name: 'en-light-1280', language: 'en', dark: false, viewport: WIDE },
  { name: 'ja-dark-1280', language: 'ja', dark: true, viewport: WIDE },
  { name: 'ja-light-390', language: 'ja', dark: false, viewport: NARROW },
  { name: 'en-dark-390', language: 'en', dark: true, viewport: NARROW },
];

/**
 * Visits every path in every look: axe, no breach, nothing wider than the window, a screenshot.
 * A path is [name, path] or [name, path, async (page) => ...] with something to do first.
 */
export async function tour(t, enter, paths) {
  for (const look of LOOKS) {
    const page = await enter(look);
    for (const [name, path, act] of paths) {
      await t.test(`${name} ${look.name}`, async () => {
        await page.evaluate((p) => {
          history.pushState(null, '', p);
          dispatchEvent(new PopStateEvent('popstate', { state: null }));
        }, path);
        await settled(page, 1000); // the page itself may have to be loaded first
        if (act) await act(page);
        await settled(page);
        await shot(page, `${name}-${look.name}`);
        await accessible(page, name);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(wide <= 0, `${name} is ${wide} pixels wider than its window`);
        await healthy(page);
        page.faults.length = 0;
      });
    }
    await page.context().close();
  }
}
