// Users, groups, roles, policies, and the simulator, through the browser; what was made is looked
// up by the API, and used.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { accessible, console_, done, healthy, open, server, tour } from './browser.mjs';

const require = createRequire(import.meta.url);
const sdk = require('@aws-sdk/client-iam');
const { STSClient, GetCallerIdentityCommand } = require('@aws-sdk/client-sts');
const config = { region: server.region, endpoint: server.url, credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey } };
const iam = new sdk.IAMClient(config);

// RFC 6238, 30 seconds, 6 digits.
function code(base32, at) {
  const bits = [...base32.replace(/=+$/, '')].map((c) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(c).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((b) => Number.parseInt(b, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(at / 30_000)));
  const mac = createHmac('sha1', key).update(counter).digest();
  return String((mac.readUInt32BE(mac[19] & 15) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

test('a user is made, with a password, an access key that is shown once, a policy and an MFA device; then signs in', async () => {
  const page = await console_('/console/iam/users');
  await page.getByRole('button', { name: 'Create user' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('textbox', { name: 'Name' }).fill('yuki');
  await dialog.getByRole('checkbox', { name: 'Provide access to this console' }).check();
  await dialog.locator('input[type=password]').fill('Temporary-Pass-7');
  await accessible(page, 'create user');
  await dialog.getByRole('button', { name: 'Create user' }).click();
  await page.getByRole('heading', { name: 'yuki' }).waitFor();

  await page.getByRole('button', { name: 'Attach policies' }).click();
  await dialog.getByRole('searchbox').fill('AdministratorAccess');
  await dialog.getByRole('checkbox', { name: /Select .*policy\/AdministratorAccess$/ }).check();
  await dialog.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByText('Attached.').waitFor();
  const attached = await iam.send(new sdk.ListAttachedUserPoliciesCommand({ UserName: 'yuki' }));
  assert.deepEqual(attached.AttachedPolicies.map((p) => p.PolicyName), ['AdministratorAccess']);

  await page.getByRole('tab', { name: 'Security credentials' }).click();
  await page.getByRole('button', { name: 'Create access key' }).click();
  await page.getByText('This is the only time').waitFor();
  const [id, secret] = await dialog.locator('[class*="awsui_text-to-copy"], [class*="text-to-copy"]').allTextContents().then((all) => (all.length >= 2 ? all : dialog.innerText().then((x) => [/AKIA[A-Z0-9]{16}/.exec(x)[0], /Secret access key\s+(\S{40})/.exec(x)[1]])));
  const me = await new STSClient({ ...config, credentials: { accessKeyId: id.trim(), secretAccessKey: secret.trim() } }).send(new GetCallerIdentityCommand({}));
  assert.match(me.Arn, /user\/yuki$/);
  await dialog.getByRole('button', { name: 'Done' }).click();
  assert.equal(await page.getByText(secret.trim()).count(), 0);

  await page.getByRole('button', { name: 'Assign MFA device' }).click();
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByText('Scan the code').waitFor();
  const seed = /\b[A-Z2-7]{32,}={0,6}\b/.exec(await dialog.innerText())[0];
  await dialog.getByRole('textbox', { name: 'MFA code 1' }).fill(code(seed, Date.now() - 30_000));
  await dialog.getByRole('textbox', { name: 'MFA code 2' }).fill(code(seed, Date.now()));
  await accessible(page, 'assign MFA device');
  await dialog.getByRole('button', { name: 'Add MFA' }).click();
  await page.getByText('The MFA device is assigned.').waitFor();
  await healthy(page);

  // The first sign-in: without the code it is refused; with it, a new password must be set.
  const fresh = await open('/console/');
  const fill = async (mfa) => {
    await fresh.locator('input[name=account]').fill(server.account);
    await fresh.locator('input[name=username]').fill('yuki');
    await fresh.locator('input[name=password]').fill('Temporary-Pass-7');
    await fresh.locator('input[name=mfa]').fill(mfa);
    await fresh.getByTestId('sign-in').click();
  };
  await fill('');
  await fresh.getByText('You are not signed in').waitFor();
  await fill(code(seed, Date.now() + 30_000)); // the present one was used to enable the device
  await fresh.getByText('You must set a password of your own').waitFor();
  await fresh.getByRole('textbox', { name: 'New password', exact: true }).fill('My-Own-Pass-77');
  await fresh.getByRole('textbox', { name: 'New password again' }).fill('My-Own-Pass-77');
  await fresh.getByTestId('sign-in').click();
  await fresh.getByRole('heading', { name: 'Welcome to Sealdesk' }).waitFor();
  await done(fresh);
});

test('a policy is written, attached to a role by the simulator\'s advice, and its decision explained', async () => {
  const page = await console_('/console/iam/policies');
  await page.getByRole('button', { name: 'Create policy' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('textbox', { name: 'Name' }).fill('desktop-launchers');
  const document = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'workspaces:*', Resource: '*' }, { Effect: 'Deny', Action: 'workspaces:TerminateWorkspaces', Resource: '*' }] };
  await dialog.getByRole('textbox', { name: 'Policy document' }).fill(JSON.stringify(document, null, 2));
  await dialog.getByRole('button', { name: 'Create policy' }).click();
  await page.getByRole('heading', { name: 'desktop-launchers' }).waitFor();
  const arn = `arn:aws:iam::${server.account}:policy/desktop-launchers`;
  await iam.send(new sdk.AttachRolePolicyCommand({ RoleName: 'desktop-operators', PolicyArn: arn }));

  await page.getByRole('link', { name: 'Policy simulator' }).click();
  await page.getByRole('button', { name: /User, group or role/ }).click();
  await page.getByRole('option', { name: /desktop-operators/ }).click();
  await page.getByRole('textbox', { name: 'Actions' }).fill('workspaces:CreateWorkspaces workspaces:TerminateWorkspaces kms:CreateGrant');
  await page.getByRole('button', { name: 'Run simulation' }).click();
  const row = (action) => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: action, exact: true }) });
  await row('workspaces:CreateWorkspaces').getByText('Allowed', { exact: true }).waitFor();
  await row('workspaces:CreateWorkspaces').getByText('"workspaces:*"').waitFor();
  await row('workspaces:TerminateWorkspaces').getByText('Denied explicitly').waitFor();
  await row('kms:CreateGrant').getByText('No statement allows it, and what is not allowed is denied.').waitFor();
  await accessible(page, 'simulator with decisions');
  await done(page);
});

test('a role is switched to: its rights are used, its denials shown, and one comes back', async () => {
  const page = await console_();
  const menu = async (item) => {
    await page.getByRole('button', { name: /^Account:/ }).first().click();
    await page.getByRole('menuitem', { name: item }).click();
  };
  await menu('Switch role');
  await page.getByRole('dialog').getByRole('textbox', { name: 'Role name or ARN' }).fill('desktop-operators');
  await page.getByRole('dialog').getByRole('button', { name: 'Switch role' }).click();
  await page.getByRole('button', { name: /desktop-operators @/ }).first().waitFor();
  await page.getByRole('link', { name: 'Key Management Service', exact: true }).first().click();
  await page.getByText(/AccessDenied/).first().waitFor();
  await page.getByText(/Request ID: /).first().waitFor();
  await page.getByText('Ask an administrator for the permission').first().waitFor();
  await menu('Switch back');
  await page.getByRole('link', { name: 'finance-desktops' }).waitFor();
  await done(page);
});

test('a session that is revoked elsewhere ends: its credentials are refused', async () => {
  const [here, there] = [await console_('/console/kms/customer'), await console_('/console/sessions')];
  await there.getByRole('button', { name: 'Refresh Sessions' }).click();
  const others = there.getByRole('button', { name: /^End session/ });
  await others.first().waitFor();
  for (let i = (await others.count()) - 1; i >= 0; i--) {
    if (await others.nth(i).isEnabled()) {
      await others.nth(i).click();
      await there.getByText('The session was ended').first().waitFor();
      await there.waitForTimeout(300);
    }
  }
  await here.getByRole('button', { name: /^Refresh/ }).first().click();
  await here.getByText(/Sign in again|InvalidClientTokenId|UnrecognizedClient|Your session has ended/).first().waitFor();
  await done(there);
});

test('the IAM pages in every look', async (t) => {
  await tour(t, (look) => console_('/console/', look), [
    ['iam-users', '/console/iam/users'],
    ['iam-groups', '/console/iam/groups'],
    ['iam-roles', '/console/iam/roles'],
    ['iam-policies', '/console/iam/policies'],
    ['iam-user', `/console/iam/users/${server.admin.name}`],
    ['iam-user-credentials', '/console/iam/users/yuki?tab=credentials'],
    ['iam-role-trust', '/console/iam/roles/desktop-operators?tab=trust'],
    ['iam-policy', `/console/iam/policies/${encodeURIComponent(`arn:aws:iam::${server.account}:policy/desktop-launchers`)}`],
    ['iam-simulator', '/console/iam/simulator'],
  ]);
});
