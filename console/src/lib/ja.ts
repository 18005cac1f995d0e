// Japanese, one file an area; the English text is the key.
import { common } from '../ja/common';
import { kms } from '../ja/kms';
import { kmsStores } from '../ja/kms-stores';
import { iam } from '../ja/iam';
import { workspaces } from '../ja/workspaces';
import { portal } from '../ja/portal';

export const ja: Record<string, string> = { ...common, ...kms, ...kmsStores, ...iam, ...workspaces, ...portal };
