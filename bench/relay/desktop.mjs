// What the way from a browser to a running desktop costs, measured in the browser:
//
//   node bench/relay/desktop.mjs URL DIRECTORY USER < password
//
// Opens the portal, connects, opens a terminal in the guest, and prints one JSON
// object: click to first frame, key press to changed pixel, bytes while typing, while
// text scrolls by, and while a picture moves: 80 by 24 patches of a terminal, each of
// a colour drawn at random, over and over, as fast as the guest draws them.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { loadavg } from 'node:os';

const { chromium } = createRequire(new URL('../../console/package.json', import.meta.url))('playwright-core');
const [url, directory, user] = process.argv.slice(2);
const password = readFileSync(0, 'utf8').trim();
const median = (l) => l.toSorted((a, b) => a - b)[l.length >> 1];
const p95 = (l) => l.toSorted((a, b) => a - b)[Math.min(l.length - 1, Math.ceil(l.length * 0.95) - 1)];
const round = (x) => Math.round(x * 10) / 10;

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
const page = await (await browser.newContext({ viewport: { width: 1280, height: 860 } })).newPage();
await page.addInitScript(() => {
  // Every time something is painted on the canvas that the user sees.
  window.painted = [];
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...a) {
    if (this.canvas.isConnected) window.painted.push(performance.now());
    return draw.apply(this, a);
  };
});
let bytes = 0;
page.on('websocket', (ws) => ws.on('framereceived', (f) => (bytes += f.payload.length)));
await page.goto(`${url}/portal/${directory}`);
await page.getByLabel('User name').fill(user);
await page.getByLabel('Password').fill(password);
await page.getByRole('button', { name: 'Sign in' }).click();
const connect = page.getByRole('button', { name: /^Connect/ });
await connect.waitFor();

const firstFrames = [];
for (let i = 0; i < 5; i++) {
  await page.evaluate(() => {
    window.painted.length = 0;
    document.addEventListener('click', () => (window.clicked = performance.now()), { once: true, capture: true });
  });
  await connect.click();
  await page.waitForFunction(() => window.painted.length > 0, undefined, { polling: 20 });
  firstFrames.push(await page.evaluate(() => window.painted[0] - window.clicked));
  await page.waitForTimeout(1500);
  if (i < 4) await page.getByRole('button', { name: 'Back to my desktops' }).click();
}

const quiet = (ms, most) => page.waitForFunction(([q]) => performance.now() - window.painted.at(-1) > q, [ms], { timeout: most, polling: 100 }).catch(() => {});
await page.waitForTimeout(3000);
await page.keyboard.press('Control+Alt+t');
await page.waitForTimeout(10_000);
await quiet(5000, 90_000);

// One key at a time, when nothing else moves; the first paint after it is its pixel.
const keys = [];
for (let i = 0; i < 40; i++) {
  await quiet(400, 3000);
  await page.evaluate(() => {
    window.painted.length = 1;
    document.addEventListener('keydown', () => (window.pressed = performance.now()), { once: true, capture: true });
  });
  await page.keyboard.press('x');
  const took = await page.waitForFunction(() => window.painted.find((t) => t > window.pressed) - window.pressed || false, undefined, { timeout: 5000, polling: 10 }).then((h) => h.jsonValue(), () => null);
  if (took !== null) keys.push(took);
}

const during = async (act) => {
  const began = Date.now();
  bytes = 0;
  await act();
  return bytes / ((Date.now() - began) / 1000);
};
const typing = await during(async () => {
  for (let i = 0; i < 60; i++) await page.keyboard.press('abcdefgh'[i % 8], { delay: 200 });
});
await page.keyboard.press('Control+u');
await page.keyboard.type('seq 100000\n', { delay: 60 });
await page.waitForTimeout(1500);
const scrolling = await during(() => page.waitForTimeout(10_000));
await page.keyboard.press('Control+c');
await page.waitForTimeout(3000);
const places = { ' ': 'Space', ';': 'Semicolon', "'": 'Quote', '\\': 'Backslash', '[': 'BracketLeft', ']': 'BracketRight', '.': 'Period', '=': 'Equal', '/': 'Slash', '\n': 'Enter' };
const shifted = { ':': ';', '{': '[', '}': ']', '%': '5', $: '4', '(': '9', ')': '0', '>': '.' };
for (const c of "for i in {1..19200}; do printf '\\e[48;5;%dm ' $((RANDOM%256)); done >f; clear; while cat f; do :; done\n") {
  const key = shifted[c] ?? c.toLowerCase();
  await page.keyboard.press(`${key === c ? '' : 'Shift+'}${places[key] ?? (/\d/.test(key) ? `Digit${key}` : `Key${key.toUpperCase()}`)}`, { delay: 30 });
}
// The frames are made first, while nothing is painted.
await page.waitForTimeout(5000);
await page.waitForFunction(() => performance.now() - window.painted.at(-1) < 500, undefined, { timeout: 120_000, polling: 200 });
await page.waitForTimeout(4000);
if (process.env.SHOT) await page.screenshot({ path: process.env.SHOT });
const moving = await during(() => page.waitForTimeout(10_000));
await page.keyboard.press('Control+c');
console.log(
  JSON.stringify({
    clickToFirstFrameMs: round(median(firstFrames)),
    keyToPixelMs: { median: round(median(keys)), p95: round(p95(keys)), keys: keys.length },
    typingKiBps: round(typing / 1024),
    scrollingKiBps: round(scrolling / 1024),
    movingPictureKiBps: round(moving / 1024),
    load: round(loadavg()[0]),
  }),
);
await browser.close();
