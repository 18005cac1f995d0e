// The portal's second field: interop.TestRadius has a directory whose codes FreeRADIUS checks.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accessible, console_, healthy, open, server, shot } from './browser.mjs';

test('a directory that asks for a code, at the portal', async () => {
  for (const [language, words] of Object.entries({ en: ['User name', 'Password', 'Sign in', 'My desktops'], ja: ['ユーザー名', 'パスワード', 'サインイン', 'マイデスクトップ'] })) {
    const page = await open(`/portal/${server.directoryId}`, { language });
    const enter = () => page.getByRole('button', { name: words[2], exact: true }).click();
    await page.getByLabel(words[0]).fill(server.userName);
    await page.getByLabel(words[1]).fill(server.userPassword);
    assert.equal(await page.getByLabel('Token code').count(), 0, 'the code is not asked for before the directory does');
    await enter();
    const code = page.getByLabel('Token code');
    await code.waitFor();
    assert.ok(await code.evaluate((e) => e === document.activeElement), 'the field has the focus');
    assert.ok(await page.getByRole('button', { name: words[2], exact: true }).isDisabled(), 'nothing to send without a code');
    await accessible(page, 'the sign-in with a code');
    await shot(page, `portal-code-${language}`);
    await code.fill('111111');
    await enter();
    await page.getByText('the password or the code is not right').waitFor();
    assert.equal(await code.inputValue(), '', 'a wrong code is not kept');
    await code.fill('424242');
    await enter();
    await page.getByRole('heading', { name: words[3] }).waitFor();
    await healthy(page);
    await page.context().close();
  }
});

test('the directory in the console says how its second factor does', async () => {
  const page = await console_(`/console/directories/${server.directoryId}`);
  await page.getByText('Completed: MS-CHAPv2, 127.0.0.1').waitFor();
  await accessible(page, 'a directory with a second factor');
  await shot(page, 'directory-radius');
  await healthy(page);
});
