"""The key service through boto3. Fails at the first thing that is not as it should be."""
import hashlib
import hmac
import json
import os

import boto3

def client(service, **more):
    return boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"], **more)


kms = client("kms")
account = os.environ["ACCOUNT"]


def refused(exception, call, **arguments):
    try:
        call(**arguments)
    except exception as e:
        return e.response["Error"]["Message"]
    raise AssertionError(f"{call.__name__}({arguments}) succeeded, want {exception.__name__}")


key = kms.create_key(Description="boto3", Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]
assert key["KeyState"] == "Enabled" and key["MultiRegion"] is False and key["EncryptionAlgorithms"] == ["SYMMETRIC_DEFAULT"], key
assert "SigningAlgorithms" not in key and "MultiRegionConfiguration" not in key and key["CreationDate"].tzinfo, key
context = {"purpose": "test", "größe": "ü"}
for plain in (b"x", bytes(range(256)) * 16):
    sealed = kms.encrypt(KeyId=key["Arn"], Plaintext=plain, EncryptionContext=context)
    opened = kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=context)
    assert opened["Plaintext"] == plain and opened["KeyId"] == key["Arn"], opened
refused(kms.exceptions.InvalidCiphertextException, kms.decrypt, CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext={"purpose": "test"})

data = kms.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256", EncryptionContext=context)
assert len(data["Plaintext"]) == 32 and kms.decrypt(CiphertextBlob=data["CiphertextBlob"], EncryptionContext=context)["Plaintext"] == data["Plaintext"]
pair = kms.generate_data_key_pair(KeyId=key["KeyId"], KeyPairSpec="ECC_NIST_P384")
assert kms.decrypt(CiphertextBlob=pair["PrivateKeyCiphertextBlob"])["Plaintext"] == pair["PrivateKeyPlaintext"]
assert len(kms.generate_random(NumberOfBytes=91)["Plaintext"]) == 91

# A MAC that Python checks, under material that Python imported.
material = hashlib.sha256(b"material").digest()
mac_key = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC", Origin="EXTERNAL")["KeyMetadata"]
assert mac_key["KeyState"] == "PendingImport" and not mac_key["Enabled"], mac_key
try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding
except ImportError:
    print("without python3-cryptography, the import is left out")
else:
    p = kms.get_parameters_for_import(KeyId=mac_key["KeyId"], WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_2048")
    public = serialization.load_der_public_key(p["PublicKey"])
    wrapped = public.encrypt(material, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    kms.import_key_material(KeyId=mac_key["KeyId"], ImportToken=p["ImportToken"], EncryptedKeyMaterial=wrapped, ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE")
    mac = kms.generate_mac(KeyId=mac_key["KeyId"], Message=b"m", MacAlgorithm="HMAC_SHA_256")["Mac"]
    assert mac == hmac.new(material, b"m", hashlib.sha256).digest()
    refused(kms.exceptions.KMSInvalidMacException, kms.verify_mac, KeyId=mac_key["KeyId"], Message=b"n", Mac=mac, MacAlgorithm="HMAC_SHA_256")

# The exception classes that programs catch.
kms.create_alias(AliasName="alias/boto3", TargetKeyId=key["KeyId"])
refused(kms.exceptions.AlreadyExistsException, kms.create_alias, AliasName="alias/boto3", TargetKeyId=key["KeyId"])
missing = "1234abcd-12ab-34cd-56ef-1234567890ab"
assert refused(kms.exceptions.NotFoundException, kms.describe_key, KeyId=missing) == f"Key 'arn:aws:kms:{kms.meta.region_name}:{account}:key/{missing}' does not exist"
refused(kms.exceptions.InvalidArnException, kms.create_grant, KeyId=key["KeyId"], GranteePrincipal=f"arn:aws:iam::{account}:user/none", Operations=["Decrypt"])
refused(kms.exceptions.MalformedPolicyDocumentException, kms.put_key_policy, KeyId=key["KeyId"], PolicyName="default", Policy="{}")
refused(kms.exceptions.TagException, kms.tag_resource, KeyId=key["KeyId"], Tags=[{"TagKey": "aws:x", "TagValue": "y"}])
refused(kms.exceptions.InvalidKeyUsageException, kms.sign, KeyId=key["KeyId"], Message=b"m", SigningAlgorithm="ECDSA_SHA_256")
refused(kms.exceptions.InvalidMarkerException, kms.list_keys, Marker="x")
kms.disable_key(KeyId=key["KeyId"])
assert refused(kms.exceptions.DisabledException, kms.encrypt, KeyId="alias/boto3", Plaintext=b"x") == key["Arn"] + " is disabled."
kms.enable_key(KeyId=key["KeyId"])

# A user made by boto3, with a grant and nothing else.
iam = client("iam")
user = iam.create_user(UserName="boto3")["User"]
pair = iam.create_access_key(UserName="boto3")["AccessKey"]
other = client("kms", aws_access_key_id=pair["AccessKeyId"], aws_secret_access_key=pair["SecretAccessKey"])
sealed = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
try:
    other.decrypt(CiphertextBlob=sealed, EncryptionContext=context)
    raise AssertionError("a user without permission decrypted")
except kms.exceptions.ClientError as e:
    assert e.response["Error"]["Code"] == "AccessDeniedException", e
grant = kms.create_grant(KeyId=key["KeyId"], GranteePrincipal=user["Arn"], Operations=["Decrypt", "RetireGrant"], Constraints={"EncryptionContextSubset": {"purpose": "test"}})
assert other.decrypt(CiphertextBlob=sealed, EncryptionContext=context)["Plaintext"] == b"x"
for i in range(5):
    kms.create_grant(KeyId=key["KeyId"], GranteePrincipal=user["Arn"], RetiringPrincipal=user["Arn"], Operations=["Encrypt"], Name=str(i))
listed = [g for page in kms.get_paginator("list_grants").paginate(KeyId=key["KeyId"], PaginationConfig={"PageSize": 2}) for g in page["Grants"]]
assert len(listed) == 6 and all(g["GranteePrincipal"] == user["Arn"] for g in listed), listed
assert len([g for page in kms.get_paginator("list_retirable_grants").paginate(RetiringPrincipal=user["Arn"], PaginationConfig={"PageSize": 2}) for g in page["Grants"]]) == 5
other.retire_grant(GrantToken=grant["GrantToken"])
try:
    other.decrypt(CiphertextBlob=sealed, EncryptionContext=context)
    raise AssertionError("a retired grant decrypted")
except kms.exceptions.ClientError as e:
    assert e.response["Error"]["Code"] == "AccessDeniedException", e

policy = json.loads(kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"])
assert policy["Statement"][0]["Principal"]["AWS"] == f"arn:aws:iam::{account}:root", policy
replica = kms.create_key(MultiRegion=True)["KeyMetadata"]
out = kms.replicate_key(KeyId=replica["KeyId"], ReplicaRegion="eu-west-1")
assert out["ReplicaKeyMetadata"]["MultiRegionConfiguration"]["MultiRegionKeyType"] == "REPLICA", out
sealed = kms.encrypt(KeyId=replica["KeyId"], Plaintext=b"far")["CiphertextBlob"]
assert client("kms", region_name="eu-west-1").decrypt(CiphertextBlob=sealed)["Plaintext"] == b"far"
for signer in ("ML_DSA_65", "ECC_NIST_EDWARDS25519"):
    try:
        k = kms.create_key(KeySpec=signer, KeyUsage="SIGN_VERIFY")["KeyMetadata"]
    except Exception as e:  # a botocore older than the spec refuses it itself
        if "Invalid" in str(e) or "validation" in str(e).lower():
            continue
        raise
    algorithm = k["SigningAlgorithms"][0]
    signature = kms.sign(KeyId=k["KeyId"], Message=b"m", MessageType="RAW", SigningAlgorithm=algorithm)["Signature"]
    assert kms.verify(KeyId=k["KeyId"], Message=b"m", MessageType="RAW", SigningAlgorithm=algorithm, Signature=signature)["SignatureValid"]
print("boto3 is content")
