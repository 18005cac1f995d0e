// The key service through the AWS SDK for JavaScript. Fails at the first thing that is not as it should be.
import assert from 'node:assert/strict';
import { createPublicKey, createVerify } from 'node:crypto';
import {
  KMSClient, CreateKeyCommand, EncryptCommand, DecryptCommand, GenerateDataKeyCommand, SignCommand, GetPublicKeyCommand, CreateGrantCommand,
  ListKeysCommand, DescribeKeyCommand, DisableKeyCommand, InvalidCiphertextException, DisabledException, NotFoundException, DryRunOperationException,
  paginateListGrants, paginateListKeys,
} from '@aws-sdk/client-kms';

const kms = new KMSClient({});
const context = { purpose: 'test', name: 'größe' };
const { KeyMetadata: key } = await kms.send(new CreateKeyCommand({ Description: 'JavaScript' }));
assert.equal(key.KeyState, 'Enabled');
assert.ok(key.CreationDate instanceof Date);
const plain = Buffer.from('attack at dawn');
const sealed = await kms.send(new EncryptCommand({ KeyId: key.Arn, Plaintext: plain, EncryptionContext: context }));
const opened = await kms.send(new DecryptCommand({ CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context }));
assert.deepEqual(Buffer.from(opened.Plaintext), plain);
assert.equal(opened.KeyId, key.Arn);
await assert.rejects(kms.send(new DecryptCommand({ CiphertextBlob: sealed.CiphertextBlob })), InvalidCiphertextException);
await assert.rejects(kms.send(new EncryptCommand({ KeyId: key.KeyId, Plaintext: plain, DryRun: true })), DryRunOperationException);
await assert.rejects(kms.send(new DescribeKeyCommand({ KeyId: 'alias/none' })), (e) => e instanceof NotFoundException && e.message.endsWith(':alias/none is not found.'));

const data = await kms.send(new GenerateDataKeyCommand({ KeyId: key.KeyId, NumberOfBytes: 64 }));
assert.equal(data.Plaintext.length, 64);

const { KeyMetadata: signer } = await kms.send(new CreateKeyCommand({ KeySpec: 'ECC_NIST_P521', KeyUsage: 'SIGN_VERIFY' }));
const { Signature: signature } = await kms.send(new SignCommand({ KeyId: signer.KeyId, Message: plain, SigningAlgorithm: 'ECDSA_SHA_512' }));
const { PublicKey: der } = await kms.send(new GetPublicKeyCommand({ KeyId: signer.KeyId }));
assert.ok(createVerify('sha512').update(plain).verify(createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' }), signature));

const root = `arn:aws:iam::${process.env.ACCOUNT}:root`;
for (let i = 0; i < 5; i++) await kms.send(new CreateGrantCommand({ KeyId: key.KeyId, GranteePrincipal: root, Operations: ['Decrypt'], Name: `n${i}` }));
let grants = 0;
for await (const page of paginateListGrants({ client: kms, pageSize: 2 }, { KeyId: key.KeyId })) grants += page.Grants.length;
assert.equal(grants, 5);
let keys = 0;
for await (const page of paginateListKeys({ client: kms, pageSize: 1 }, {})) keys += page.Keys.length;
assert.equal(keys, (await kms.send(new ListKeysCommand({}))).Keys.length);

await kms.send(new DisableKeyCommand({ KeyId: key.KeyId }));
await assert.rejects(kms.send(new DecryptCommand({ CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context })), (e) => e instanceof DisabledException && e.message === `${key.Arn} is disabled.`);
console.log('the AWS SDK for JavaScript is content');
