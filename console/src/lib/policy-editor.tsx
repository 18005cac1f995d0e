// A JSON editor for policies, with the place of the first mistake as one types.

import Box from '@cloudscape-design/components/box';
import Button from '@cloudscape-design/components/button';
import FormField from '@cloudscape-design/components/form-field';
import SpaceBetween from '@cloudscape-design/components/space-between';
import Textarea from '@cloudscape-design/components/textarea';
import { t } from './i18n';
import { JsonMistake } from './json';
import { parsePolicy } from './keypolicy';
import './policy-editor.css';

/** What is wrong with a policy's text, '' if nothing is. */
export function mistake(text: string): string {
  try {
    parsePolicy(text);
    return '';
  } catch (e) {
    return e instanceof JsonMistake ? `${t('Line')} ${e.line}, ${t('column')} ${e.column}: ${t(e.what)}` : (e as Error).message;
  }
}

interface Props {
  label: string;
  value: string;
  onChange: (text: string) => void;
  description?: string;
  readOnly?: boolean;
  rows?: number;
  /** The most characters that AWS takes, white space left out where AWS leaves it out. */
  limit?: number;
}

export function PolicyEditor({ label, value, onChange, description, readOnly, rows = 24, limit }: Props) {
  const wrong = readOnly ? '' : mistake(value);
  const size = value.replace(/\s+/g, '').length;
  const format = () => onChange(JSON.stringify(JSON.parse(value), null, 2));
  return (
    <SpaceBetween size="xs">
      <FormField
        label={label}
        description={description}
        errorText={wrong}
        stretch
        constraintText={readOnly ? undefined : limit ? `${size} / ${limit} ${t('characters, white space not counted')}` : undefined}
      >
        <div className="policy-editor">
          <Textarea value={value} onChange={(e) => onChange(e.detail.value)} readOnly={readOnly} rows={rows} spellcheck={false} disableBrowserAutocorrect />
        </div>
      </FormField>
      {!readOnly && (
        <Box>
          <Button onClick={format} disabled={!!wrong}>
            {t('Format JSON')}
          </Button>
        </Box>
      )}
    </SpaceBetween>
  );
}
