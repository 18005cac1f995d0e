# The key service through the AWS CLI. Ends with an error at the first thing that is not as it should be.
k() { aws --endpoint-url "$AWS_ENDPOINT_URL" kms "$@"; }
modern=0 # Debian 12's is older than some members
k rotate-key-on-demand --generate-cli-skeleton >/dev/null 2>&1 && modern=1
refused() { # CODE command...: the command must be refused with the code
    local code=$1 out
    shift
    if out=$("$@" 2>&1); then echo "$*: succeeded, want $code" >&2; return 1; fi
    grep -q "($code)" <<<"$out" || { echo "$*: $out, want $code" >&2; return 1; }
}
same() { [[ $1 == "$2" ]] || { echo "got '$1', want '$2' ($3)" >&2; return 1; }; }

printf 'attack at dawn' >plain
key=$(k create-key --description cli --tags TagKey=a,TagValue=b --query KeyMetadata.KeyId --output text)
arn=$(k describe-key --key-id "$key" --query KeyMetadata.Arn --output text)
k create-alias --alias-name alias/cli --target-key-id "$key"
same "$(k list-aliases --key-id "$key" --query 'Aliases[0].AliasName' --output text)" alias/cli list-aliases
k encrypt --key-id alias/cli --plaintext fileb://plain --encryption-context a=1,b=2 --query CiphertextBlob --output text | base64 -d >sealed
same "$(k decrypt --ciphertext-blob fileb://sealed --encryption-context b=2,a=1 --query Plaintext --output text | base64 -d)" 'attack at dawn' decrypt
same "$(k decrypt --ciphertext-blob fileb://sealed --encryption-context b=2,a=1 --query KeyId --output text)" "$arn" 'key of decrypt'
refused InvalidCiphertextException k decrypt --ciphertext-blob fileb://sealed
refused InvalidCiphertextException k decrypt --ciphertext-blob fileb://plain
((!modern)) || refused DryRunOperationException k decrypt --ciphertext-blob fileb://sealed --encryption-context b=2,a=1 --dry-run
refused NotFoundException k describe-key --key-id alias/none

second=$(k create-key --query KeyMetadata.KeyId --output text)
k re-encrypt --ciphertext-blob fileb://sealed --source-encryption-context a=1,b=2 --destination-key-id "$second" --query CiphertextBlob --output text | base64 -d >moved
same "$(k decrypt --ciphertext-blob fileb://moved --query Plaintext --output text | base64 -d)" 'attack at dawn' re-encrypt
refused IncorrectKeyException k decrypt --key-id "$key" --ciphertext-blob fileb://moved

# Signatures that openssl checks with the public key.
for spec in ECC_NIST_P256:ECDSA_SHA_256 RSA_2048:RSASSA_PKCS1_V1_5_SHA_256; do
    signer=$(k create-key --key-spec "${spec%:*}" --key-usage SIGN_VERIFY --query KeyMetadata.KeyId --output text)
    k sign --key-id "$signer" --message fileb://plain --signing-algorithm "${spec#*:}" --query Signature --output text | base64 -d >signature
    k get-public-key --key-id "$signer" --query PublicKey --output text | base64 -d | openssl pkey -pubin -inform DER -out public.pem
    openssl dgst -sha256 -verify public.pem -signature signature plain >/dev/null
    same "$(k verify --key-id "$signer" --message fileb://plain --signature fileb://signature --signing-algorithm "${spec#*:}" --query SignatureValid --output text)" True verify
    refused KMSInvalidSignatureException k verify --key-id "$signer" --message fileb://sealed --signature fileb://signature --signing-algorithm "${spec#*:}"
done

# A user's own key material, wrapped by openssl.
own=$(k create-key --origin EXTERNAL --query KeyMetadata.KeyId --output text)
openssl rand 32 >material
k get-parameters-for-import --key-id "$own" --wrapping-algorithm RSAES_OAEP_SHA_256 --wrapping-key-spec RSA_3072 >parameters.json
jq -r .PublicKey parameters.json | base64 -d >wrapping.der
jq -r .ImportToken parameters.json | base64 -d >token
openssl pkeyutl -encrypt -pubin -keyform DER -inkey wrapping.der -in material -out wrapped -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
k import-key-material --key-id "$own" --encrypted-key-material fileb://wrapped --import-token fileb://token --expiration-model KEY_MATERIAL_DOES_NOT_EXPIRE >/dev/null
same "$(k describe-key --key-id "$own" --query KeyMetadata.KeyState --output text)" Enabled import-key-material

# Grants, policies, rotation, states.
grant=$(k create-grant --key-id "$key" --grantee-principal "arn:aws:iam::$ACCOUNT:root" --operations Decrypt DescribeKey --constraints EncryptionContextSubset={a=1} --query GrantId --output text)
same "$(k list-grants --key-id "$key" --query 'Grants[].GrantId' --output text)" "$grant" list-grants
k revoke-grant --key-id "$key" --grant-id "$grant"
k get-key-policy --key-id "$key" --policy-name default --query Policy --output text >policy.json
k put-key-policy --key-id "$key" --policy-name default --policy file://policy.json
k enable-key-rotation --key-id "$key"
same "$(k get-key-rotation-status --key-id "$key" --query KeyRotationEnabled --output text)" True get-key-rotation-status
if ((modern)); then
    k enable-key-rotation --key-id "$key" --rotation-period-in-days 90
    same "$(k get-key-rotation-status --key-id "$key" --query RotationPeriodInDays --output text)" 90 get-key-rotation-status
    k rotate-key-on-demand --key-id "$key" >/dev/null
    same "$(k decrypt --ciphertext-blob fileb://sealed --encryption-context b=2,a=1 --query Plaintext --output text | base64 -d)" 'attack at dawn' 'decrypt after rotation'
    same "$(k list-key-rotations --key-id "$key" --query 'Rotations[].RotationType' --output text)" ON_DEMAND list-key-rotations
fi
k disable-key --key-id "$key"
refused DisabledException k encrypt --key-id "$key" --plaintext fileb://plain
k enable-key --key-id "$key"
k schedule-key-deletion --key-id "$key" --pending-window-in-days 7 >/dev/null
refused KMSInvalidStateException k encrypt --key-id "$key" --plaintext fileb://plain
k cancel-key-deletion --key-id "$key" >/dev/null
same "$(k describe-key --key-id "$key" --query KeyMetadata.KeyState --output text)" Disabled cancel-key-deletion
for i in $(seq 3); do k create-key >/dev/null; done
same "$(k list-keys --page-size 2 --query 'Keys[].KeyId' --output text | wc -w)" 8 'list-keys in pages of 2'
echo "the AWS CLI is content"
