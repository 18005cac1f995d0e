// The AWS Encryption SDK on the key service: envelopes under two keys, a context that must come back, a replica in another region, and what is refused.
import assert from 'node:assert/strict';
import { KMS } from '@aws-sdk/client-kms';
import { AwsKmsMrkAwareSymmetricKeyringNode, CommitmentPolicy, KmsKeyringNode, buildClient } from '@aws-crypto/client-node';

const clientProvider = (region) => new KMS({ region });
const home = process.env.AWS_REGION, away = home === 'eu-west-1' ? 'us-east-1' : 'eu-west-1';
const kms = clientProvider(home);
const { encrypt, decrypt } = buildClient(CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT);
const { KeyMetadata: first } = await kms.createKey({ MultiRegion: true });
const { KeyMetadata: second } = await kms.createKey({});
const plain = Buffer.from('attack at dawn');
const encryptionContext = { purpose: 'test', name: 'größe' };
const { result } = await encrypt(new KmsKeyringNode({ clientProvider, generatorKeyId: first.Arn, keyIds: [second.Arn] }), plain, { encryptionContext });

const under = async (keyring, message = result) => {
  const { plaintext, messageHeader } = await decrypt(keyring, message);
  assert.equal(messageHeader.encryptionContext.name, encryptionContext.name);
  return plaintext;
};
for (const { Arn } of [first, second]) assert.deepEqual(await under(new KmsKeyringNode({ clientProvider, keyIds: [Arn] })), plain);
assert.deepEqual(await under(new KmsKeyringNode({ clientProvider, discovery: true })), plain);

const { ReplicaKeyMetadata: replica } = await kms.replicateKey({ KeyId: first.Arn, ReplicaRegion: away });
const mrk = new AwsKmsMrkAwareSymmetricKeyringNode({ keyId: replica.Arn, client: clientProvider(away) });
assert.deepEqual(await under(mrk), plain);

// A flipped bit of an encrypted data key, and keys that are disabled, open nothing.
const at = result.indexOf(Buffer.from(second.Arn)) + second.Arn.length + 20;
const flipped = Buffer.from(result);
flipped[at] ^= 1;
await assert.rejects(under(new KmsKeyringNode({ clientProvider, keyIds: [second.Arn] }), flipped), /InvalidCiphertextException/);
await kms.disableKey({ KeyId: second.KeyId });
await assert.rejects(under(new KmsKeyringNode({ clientProvider, keyIds: [second.Arn] })), /DisabledException|is disabled/);
assert.deepEqual(await under(new KmsKeyringNode({ clientProvider, keyIds: [first.Arn] })), plain);
console.log('the AWS Encryption SDK is content');
