// Custom key stores by console: one behind a real external key store proxy, from its
// creation to its deletion, and a key in it.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { accessible, console_, done, server, shot, tour } from './browser.mjs';

const { KMSClient, DescribeCustomKeyStoresCommand, DescribeKeyCommand, EncryptCommand, DecryptCommand } = createRequire(import.meta.url)('@aws-sdk/client-kms');
const kms = new KMSClient({ region: server.region, endpoint: server.url, credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey } });
const stores = async () => (await kms.send(new DescribeCustomKeyStoresCommand({}))).CustomKeyStores;

let id = '';
let failed = '';

test('an external key store: refused, created, connected, a key in it, changed, disconnected, not deleted', async () => {
  const page = await console_('/console/kms/customer');
  await page.getByRole('link', { name: 'Custom key stores' }).click();
  await page.getByText('No custom key stores').waitFor();
  await accessible(page, 'no custom key stores');
  await page.getByRole('button', { name: 'Create key store' }).click();
  await page.getByLabel('Key store name').waitFor(); // the page before has a button of the same name
  const create = page.getByRole('button', { name: 'Create key store' });
  assert.ok(await create.isDisabled());
  await page.getByLabel('Key store name').fill('vault');
  await page.getByLabel('Proxy URI endpoint').fill(server.proxy.endpoint);
  await page.getByLabel('Proxy URI path').fill(server.proxy.path);
  await page.getByLabel('Proxy credential: access key ID').fill(server.proxy.accessKeyId);
  const secret = page.getByLabel('Proxy credential: secret access key');
  await secret.fill('x'.repeat(43));
  await create.click();
  await page.getByText('XksProxyIncorrectAuthenticationCredentialException').first().waitFor();
  assert.deepEqual(await stores(), []);
  await secret.fill(server.proxy.secretAccessKey);
  await create.click();
  await page.getByRole('heading', { name: 'vault' }).waitFor();
  [{ CustomKeyStoreId: id }] = await stores();

  const act = async (name) => {
    await page.getByRole('button', { name: 'Key store actions' }).click();
    await page.getByRole('menuitem', { name, exact: true }).click();
  };
  const confirm = (name) => page.getByRole('dialog').getByRole('button', { name, exact: true }).click();
  const newKey = page.getByRole('button', { name: 'Create a KMS key in this key store' });
  assert.ok(await newKey.isDisabled(), 'no key while it is not connected');
  await act('Connect');
  await confirm('Connect');
  await page.getByText('Connected', { exact: true }).waitFor();
  assert.equal((await stores())[0].ConnectionState, 'CONNECTED');

  // The wizard, with the store chosen already.
  await newKey.click();
  const next = () => page.getByRole('button', { name: 'Next' }).click();
  await page.getByRole('radio', { name: 'External key store' }).and(page.locator(':checked')).waitFor();
  await next();
  await page.getByText('Enter the ID of the key in the external key manager.').waitFor();
  await page.getByLabel('External key ID').fill('ext-1');
  await accessible(page, 'a key in a custom key store');
  await shot(page, 'kms-create-in-store');
  await next();
  await page.getByRole('textbox', { name: 'Alias' }).fill('in-the-vault');
  await next();
  await next();
  await next();
  await page.getByRole('button', { name: 'Finish' }).click();
  await page.getByRole('heading', { name: 'in-the-vault' }).waitFor();
  const { KeyMetadata: key } = await kms.send(new DescribeKeyCommand({ KeyId: 'alias/in-the-vault' }));
  assert.deepEqual([key.Origin, key.CustomKeyStoreId, key.XksKeyConfiguration.Id], ['EXTERNAL_KEY_STORE', id, 'ext-1']);
  const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId: key.KeyId, Plaintext: Buffer.from('through the proxy') }));
  assert.equal(Buffer.from((await kms.send(new DecryptCommand({ CiphertextBlob }))).Plaintext).toString(), 'through the proxy');
  await page.getByRole('tab', { name: 'Cryptographic configuration' }).click();
  await page.getByText('ext-1').waitFor();
  await page.getByRole('link', { name: id }).click();
  await page.getByRole('link', { name: 'in-the-vault' }).waitFor();

  // While it is connected only its name and credential can change; a new name is enough.
  await act('Edit');
  const dialog = page.getByRole('dialog', { name: 'Edit custom key store' });
  assert.ok(await dialog.getByLabel('Proxy URI endpoint').isDisabled());
  assert.ok(await dialog.getByRole('button', { name: 'Save changes' }).isDisabled(), 'nothing to save');
  assert.equal(await dialog.getByLabel('Proxy credential: secret access key').inputValue(), '', 'the secret is never shown');
  await accessible(page, 'edit a custom key store');
  await dialog.getByLabel('Key store name').fill('vault-2');
  await confirm('Save changes');
  await page.getByRole('heading', { name: 'vault-2' }).waitFor();

  await act('Disconnect');
  const cut = page.getByRole('dialog').getByRole('button', { name: 'Disconnect', exact: true });
  assert.ok(await cut.isDisabled(), 'its name must be typed');
  await page.getByRole('dialog').getByRole('textbox', { name: /To confirm/ }).fill('vault-2');
  await cut.click();
  await page.getByText('Disconnected', { exact: true }).waitFor();
  assert.equal((await stores())[0].ConnectionState, 'DISCONNECTED');

  // A key is in it: it is not deleted, and the page says why.
  await act('Delete');
  await page.getByRole('dialog').getByRole('textbox', { name: /To confirm/ }).fill('vault-2');
  await confirm('Delete');
  await page.getByText(/CustomKeyStoreHasCMKsException/).first().waitFor();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel', exact: true }).click();
  await done(page);
});

test('a connection that fails says why, and what to do', async () => {
  const page = await console_('/console/kms/stores/create');
  await page.getByRole('radio', { name: 'VPC endpoint service' }).check({ force: true });
  await page.getByLabel('Key store name').fill('far-away');
  await page.getByLabel('VPC endpoint service name').fill('com.amazonaws.vpce.us-west-2.vpce-svc-0123456789abcdef0');
  await page.getByLabel('Proxy URI endpoint').fill('https://far.corp.example.com');
  await page.getByLabel('Proxy credential: access key ID').fill(server.proxy.accessKeyId);
  await page.getByLabel('Proxy credential: secret access key').fill(server.proxy.secretAccessKey);
  await page.getByRole('button', { name: 'Create key store' }).click();
  await page.getByRole('heading', { name: 'far-away' }).waitFor();
  failed = new URL(page.url()).pathname;
  await page.getByRole('button', { name: 'Key store actions' }).click();
  await page.getByRole('menuitem', { name: 'Connect', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Connect', exact: true }).click();
  await page.getByText('The last connection failed: XKS_PROXY_NOT_REACHABLE').waitFor();
  await page.getByText('The proxy cannot be reached at its URI.').waitFor();
  await accessible(page, 'a failed connection');
  await done(page);
});

test('a CloudHSM key store whose cluster is not there is refused', async () => {
  const page = await console_('/console/kms/stores/create');
  await page.getByRole('radio', { name: 'AWS CloudHSM key store' }).check({ force: true });
  await page.getByLabel('Key store name').fill('hsm');
  await page.getByLabel('CloudHSM cluster ID').fill('cluster-abcdefghijk');
  await page.getByLabel('Trust anchor certificate').fill('-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n');
  await page.getByLabel('Password of kmsuser').fill('kmsuser-Passw0rd');
  await accessible(page, 'a CloudHSM key store');
  await page.getByRole('button', { name: 'Create key store' }).click();
  await page.getByText('CloudHsmClusterNotFoundException').first().waitFor();
  await done(page);
});

test('the pages of custom key stores in every look', async (t) => {
  await tour(t, (look) => console_('/console/', look), [
    ['kms-stores', '/console/kms/stores'],
    ['kms-store', `/console/kms/stores/${id}`],
    ['kms-store-failed', failed],
    ['kms-store-create', '/console/kms/stores/create'],
  ]);
});
