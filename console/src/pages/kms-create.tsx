import Alert from '@cloudscape-design/components/alert';
import Box from '@cloudscape-design/components/box';
import Checkbox from '@cloudscape-design/components/checkbox';
import Container from '@cloudscape-design/components/container';
import ExpandableSection from '@cloudscape-design/components/expandable-section';
import FormField from '@cloudscape-design/components/form-field';
import Header from '@cloudscape-design/components/header';
import Input from '@cloudscape-design/components/input';
import KeyValuePairs from '@cloudscape-design/components/key-value-pairs';
import Link from '@cloudscape-design/components/link';
import RadioGroup from '@cloudscape-design/components/radio-group';
import Select from '@cloudscape-design/components/select';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Textarea from '@cloudscape-design/components/textarea';
import Wizard from '@cloudscape-design/components/wizard';
import { useState } from 'react';
import { useNavigate, useSearchParams } from 'react-router';
import * as client from '../lib/clients';
import { t } from '../lib/i18n';
import * as kp from '../lib/keypolicy';
import { PolicyEditor } from '../lib/policy-editor';
import { describePrincipal, PrincipalTable } from '../lib/principals';
import { listStores } from '../lib/kms';
import { getState } from '../lib/session';
import { ErrorBox, useAction, useFollow, useLoad, useNote, useRegion } from '../lib/ui';
import { type Tag, TagRows } from './kms-tabs';
import { usageOf } from './kms-list';

const RSA = ['RSA_2048', 'RSA_3072', 'RSA_4096'];
const NIST = ['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521'];
const SPECS: Record<string, Record<string, string[]>> = {
  symmetric: { ENCRYPT_DECRYPT: ['SYMMETRIC_DEFAULT'], GENERATE_VERIFY_MAC: ['HMAC_256', 'HMAC_384', 'HMAC_512', 'HMAC_224'] },
  asymmetric: { ENCRYPT_DECRYPT: RSA, SIGN_VERIFY: [...RSA, ...NIST, 'ECC_SECG_P256K1'], KEY_AGREEMENT: NIST },
};

export default function CreateKey() {
  const region = useRegion();
  const navigate = useNavigate();
  const follow = useFollow();
  const note = useNote();
  const a = useAction();
  const [step, setStep] = useState(0);
  const [type, setType] = useState('symmetric');
  const [usage, setUsage] = useState('ENCRYPT_DECRYPT');
  const [spec, setSpec] = useState('SYMMETRIC_DEFAULT');
  const [origin, setOrigin] = useState('AWS_KMS');
  const [store, setStore] = useState('');
  const [external, setExternal] = useState(''); // the key's ID in an external key store
  const [multi, setMulti] = useState(false);
  const [alias, setAlias] = useState('');
  const [description, setDescription] = useState('');
  const [tags, setTags] = useState<Tag[]>([]);
  const [admins, setAdmins] = useState<string[]>([]);
  const [deletion, setDeletion] = useState(true);
  const [users, setUsers] = useState<string[]>([]);
  const [accounts, setAccounts] = useState('');
  const [tried, setTried] = useState(false);
  const [made, setMade] = useState('');
  const account = getState().role?.account ?? getState().identity!.account;
  const [search] = useSearchParams(); // ?store=: from the page of a custom key store
  const stores = useLoad(async () => {
    const all = await listStores(region);
    const asked = all.find((s) => s.CustomKeyStoreId === search.get('store'));
    if (asked) keepIn(asked.CustomKeyStoreType === 'AWS_CLOUDHSM' ? 'AWS_CLOUDHSM' : 'EXTERNAL_KEY_STORE', asked.CustomKeyStoreId!);
    return all;
  }, [region]);
  const specs = SPECS[type][usage] ?? [];
  const inStore = origin === 'AWS_CLOUDHSM' || origin === 'EXTERNAL_KEY_STORE';
  const choices = (stores.data ?? []).filter((s) => s.CustomKeyStoreType === origin).map((s) => ({ value: s.CustomKeyStoreId!, label: s.CustomKeyStoreName, description: s.ConnectionState, disabled: s.ConnectionState !== 'CONNECTED' }));
  const wrongStore = !inStore ? '' : store === '' ? t('Choose a key store that is connected.') : origin === 'EXTERNAL_KEY_STORE' && !/^[A-Za-z0-9._-]{1,128}$/.test(external) ? t('Enter the ID of the key in the external key manager.') : '';
  const others = accounts.split(/[\s,]+/).filter(Boolean);
  const wrongAccount = others.find((x) => !/^\d{12}$/.test(x));
  const wrongAlias = alias === '' ? t('Give the key an alias.') : !/^[A-Za-z0-9/_-]+$/.test(alias) ? t('Letters, digits, / _ and - only.') : alias.startsWith('aws/') ? t('Names that begin with aws/ are for AWS managed keys.') : '';
  const policy = kp.newKeyPolicy(account, admins, deletion, users, wrongAccount ? [] : others);

  const choose = (nextType: string, nextUsage: string) => {
    const u = SPECS[nextType][nextUsage] ? nextUsage : 'ENCRYPT_DECRYPT';
    setType(nextType);
    setUsage(u);
    setSpec(SPECS[nextType][u][0]);
  };
  /** Custom key stores hold symmetric keys of one Region only. */
  const keepIn = (where: string, id = '') => {
    setOrigin(where);
    setStore(id);
    if (where === 'AWS_CLOUDHSM' || where === 'EXTERNAL_KEY_STORE') {
      choose('symmetric', 'ENCRYPT_DECRYPT');
      setMulti(false);
    }
  };
  const create = () =>
    a.run(async () => {
      const [c, { CreateKeyCommand, CreateAliasCommand }] = await Promise.all([client.kms(region), import('@aws-sdk/client-kms')]);
      let id = made; // of a first try, whose alias was refused
      if (!id) {
        const out = await c.send(
          new CreateKeyCommand({
            KeySpec: spec as never,
            KeyUsage: usage as never,
            Origin: origin as never,
            CustomKeyStoreId: inStore ? store : undefined,
            XksKeyId: origin === 'EXTERNAL_KEY_STORE' ? external : undefined,
            MultiRegion: multi,
            Description: description,
            Policy: kp.formatPolicy(policy),
            Tags: tags.filter((x) => x.key).map((x) => ({ TagKey: x.key, TagValue: x.value })),
          }),
        );
        id = out.KeyMetadata!.KeyId!;
        setMade(id);
      }
      await c.send(new CreateAliasCommand({ AliasName: `alias/${alias}`, TargetKeyId: id }));
      note({ type: 'success', content: `${t('The key is created.')} ${alias} (${id})` });
      navigate(`/kms/keys/${id}`);
    });
  const names = (arns: string[]) => (arns.length ? arns.map((x) => describePrincipal(x).name).join(', ') : t('Nobody'));

  return (
    <Wizard
      activeStepIndex={step}
      isLoadingNextStep={a.busy}
      submitButtonText={t('Finish')}
      i18nStrings={{
        stepNumberLabel: (n) => `${t('Step')} ${n}`,
        collapsedStepsLabel: (n, all) => `${t('Step')} ${n} / ${all}`,
        navigationAriaLabel: t('Steps'),
        cancelButton: t('Cancel'),
        previousButton: t('Previous'),
        nextButton: t('Next'),
        optional: t('optional'),
      }}
      onCancel={() => navigate('/kms/customer')}
      onSubmit={create}
      onNavigate={(e) => {
        const to = e.detail.requestedStepIndex;
        if (to > step && ((step === 0 && wrongStore) || (step === 1 && wrongAlias) || (step === 3 && wrongAccount))) return setTried(true);
        setTried(false);
        setStep(to);
      }}
      steps={[
        {
          title: t('Configure key'),
          content: (
            <Container header={<Header variant="h2">{t('Key type')}</Header>}>
              <SpaceBetween size="l">
                <FormField label={t('Key type')}>
                  <RadioGroup
                    value={type}
                    onChange={(e) => choose(e.detail.value, usage)}
                    items={[
                      { value: 'symmetric', label: t('Symmetric'), description: t('A single key for encrypting and decrypting data, or generating and verifying HMAC codes. Desktops and volumes need this type.') },
                      { value: 'asymmetric', label: t('Asymmetric'), description: t('A public and private key pair for encrypting and decrypting data, signing and verifying messages, or deriving shared secrets.'), disabled: inStore },
                    ]}
                  />
                </FormField>
                <FormField label={t('Key usage')}>
                  <RadioGroup value={usage} onChange={(e) => choose(type, e.detail.value)} items={Object.keys(SPECS[type]).map((u) => ({ value: u, label: usageOf(u), disabled: inStore && u !== 'ENCRYPT_DECRYPT' }))} />
                </FormField>
                {specs.length > 1 && (
                  <FormField label={t('Key spec')}>
                    <Select selectedOption={{ value: spec, label: spec }} options={specs.map((s) => ({ value: s, label: s }))} onChange={(e) => setSpec(e.detail.selectedOption.value!)} />
                  </FormField>
                )}
                {spec !== 'SYMMETRIC_DEFAULT' && <Alert type="info">{t('WorkSpaces and EBS do not take this key: they need a symmetric encryption key.')}</Alert>}
                <ExpandableSection headerText={t('Advanced options')} defaultExpanded={search.has('store')}>
                  <SpaceBetween size="l">
                    <FormField label={t('Key material origin')}>
                      <RadioGroup
                        value={origin}
                        onChange={(e) => keepIn(e.detail.value)}
                        items={[
                          { value: 'AWS_KMS', label: t('KMS (recommended)'), description: t('KMS creates and keeps the key material.') },
                          { value: 'EXTERNAL', label: t('External (Import key material)'), description: t('You create the key material and import it with ImportKeyMaterial.') },
                          { value: 'AWS_CLOUDHSM', label: t('AWS CloudHSM key store'), description: t('The key is made in an HSM cluster and stays there.') },
                          { value: 'EXTERNAL_KEY_STORE', label: t('External key store'), description: t('The key is in a key manager outside, and is used through its proxy.') },
                        ]}
                      />
                    </FormField>
                    <ErrorBox error={inStore && stores.error} />
                    {inStore && (
                      <FormField label={t('Custom key store')} errorText={tried && !store ? wrongStore : ''}>
                        <Select
                          selectedOption={choices.find((s) => s.value === store) ?? null}
                          options={choices}
                          onChange={(e) => setStore(e.detail.selectedOption.value!)}
                          placeholder={t('Choose a key store that is connected.')}
                          statusType={stores.loading ? 'loading' : 'finished'}
                          empty={t('No custom key stores')}
                        />
                      </FormField>
                    )}
                    {origin === 'EXTERNAL_KEY_STORE' && (
                      <FormField label={t('External key ID')} description={t('How the key manager calls a symmetric 256-bit key that it has already.')} errorText={tried && store ? wrongStore : ''}>
                        <Input value={external} onChange={(e) => setExternal(e.detail.value.trim())} />
                      </FormField>
                    )}
                    <FormField label={t('Regionality')}>
                      <RadioGroup
                        value={multi ? 'multi' : 'single'}
                        onChange={(e) => setMulti(e.detail.value === 'multi')}
                        items={[
                          { value: 'single', label: t('Single-Region key') },
                          { value: 'multi', label: t('Multi-Region key'), description: t('Can be replicated into other Regions.'), disabled: inStore },
                        ]}
                      />
                    </FormField>
                  </SpaceBetween>
                </ExpandableSection>
              </SpaceBetween>
            </Container>
          ),
        },
        {
          title: t('Add labels'),
          content: (
            <SpaceBetween size="l">
              <Container header={<Header variant="h2">{t('Alias')}</Header>}>
                <SpaceBetween size="l">
                  <FormField label={t('Alias')} description={t('A name for the key; you can change it at any time.')} errorText={tried ? wrongAlias : ''}>
                    <Input value={alias} onChange={(e) => setAlias(e.detail.value.trim())} />
                  </FormField>
                  <FormField label={t('Description')} description={t('Optional.')}>
                    <Input value={description} onChange={(e) => setDescription(e.detail.value)} />
                  </FormField>
                </SpaceBetween>
              </Container>
              <Container header={<Header variant="h2">{t('Tags')}</Header>}>
                <TagRows tags={tags} onChange={setTags} />
              </Container>
            </SpaceBetween>
          ),
        },
        {
          title: t('Define key administrative permissions'),
          content: (
            <SpaceBetween size="l">
              <Container header={<Header variant="h2" description={t('Choose the IAM users and roles who can administer this key through the KMS API.')}>{t('Key administrators')}</Header>}>
                <PrincipalTable label={t('Key administrators')} selected={admins} onChange={setAdmins} />
              </Container>
              <Container header={<Header variant="h2">{t('Key deletion')}</Header>}>
                <Checkbox checked={deletion} onChange={(e) => setDeletion(e.detail.checked)}>
                  {t('Allow key administrators to delete this key.')}
                </Checkbox>
              </Container>
            </SpaceBetween>
          ),
        },
        {
          title: t('Define key usage permissions'),
          content: (
            <SpaceBetween size="l">
              <Container header={<Header variant="h2" description={t('The IAM users and roles who can use this key in cryptographic operations, and through AWS services such as WorkSpaces.')}>{t('Key users')}</Header>}>
                <PrincipalTable label={t('Key users')} selected={users} onChange={setUsers} />
              </Container>
              <Container header={<Header variant="h2">{t('Other AWS accounts')}</Header>}>
                <FormField label={t('Account IDs')} description={t('Optional. One a line.')} errorText={wrongAccount ? `${wrongAccount}: ${t('An account ID has 12 digits.')}` : ''}>
                  <Textarea value={accounts} onChange={(e) => setAccounts(e.detail.value)} rows={2} />
                </FormField>
              </Container>
            </SpaceBetween>
          ),
        },
        {
          title: t('Review'),
          content: (
            <SpaceBetween size="l">
              <Container header={<Header variant="h2">{t('Key configuration')}</Header>}>
                <KeyValuePairs
                  columns={3}
                  items={[
                    { label: t('Alias'), value: alias },
                    { label: t('Key type'), value: t(type === 'symmetric' ? 'Symmetric' : 'Asymmetric') },
                    { label: t('Key spec'), value: spec },
                    { label: t('Key usage'), value: usageOf(usage) },
                    { label: t('Origin'), value: origin },
                    ...(inStore ? [{ label: t('Custom key store'), value: choices.find((s) => s.value === store)?.label ?? store }] : []),
                    { label: t('Regionality'), value: multi ? t('Multi-Region') : t('Single Region') },
                    { label: t('Description'), value: description || '-' },
                    { label: t('Key administrators'), value: names(admins) },
                    { label: t('Key users'), value: names(users) },
                  ]}
                />
              </Container>
              <Container header={<Header variant="h2">{t('Key policy')}</Header>}>
                <PolicyEditor label={t('Policy document')} value={kp.formatPolicy(policy)} onChange={() => {}} readOnly rows={18} />
              </Container>
              <ErrorBox error={a.error} title={made ? t('The key is created, but has no alias') : t('The key is not created')} />
              {made && !a.busy && a.error !== null && (
                <Box>
                  <Link href={`/console/kms/keys/${made}`} onFollow={follow}>
                    {t('Open the key')}
                  </Link>
                </Box>
              )}
            </SpaceBetween>
          ),
        },
      ]}
    />
  );
}
