// Keyboard layouts. The page sends which key was pressed, not which letter (QEMU
// extended key events), so the desktop must be told what is printed on the keys.
// IDs are XKB names.

export const KEYBOARDS = [
  { id: 'us', name: 'English (US)' },
  { id: 'jp', name: 'Japanese' },
  { id: 'gb', name: 'English (UK)' },
  { id: 'de', name: 'German' },
  { id: 'ch', name: 'Swiss' },
  { id: 'fr', name: 'French' },
  { id: 'be', name: 'Belgian' },
  { id: 'es', name: 'Spanish' },
  { id: 'it', name: 'Italian' },
  { id: 'pt', name: 'Portuguese' },
  { id: 'br', name: 'Portuguese (Brazil)' },
  { id: 'se', name: 'Swedish' },
  { id: 'no', name: 'Norwegian' },
  { id: 'dk', name: 'Danish' },
  { id: 'fi', name: 'Finnish' },
  { id: 'pl', name: 'Polish' },
  { id: 'kr', name: 'Korean' },
];

const BY_LANGUAGE: Record<string, string> = { ja: 'jp', ko: 'kr', 'en-GB': 'gb', 'de-CH': 'ch', 'fr-CH': 'ch', 'pt-BR': 'br', sv: 'se', nb: 'no', nn: 'no', da: 'dk' };

/** The layout that somebody who reads the language most likely has. */
export function keyboardOf(language: string): string {
  const short = language.split('-')[0];
  const id = BY_LANGUAGE[language] ?? BY_LANGUAGE[short] ?? short;
  return KEYBOARDS.some((k) => k.id === id) ? id : 'us';
}

/** A choice of the user that lasts, if the browser keeps it and it is still one. */
export function kept(name: string, among: string[], otherwise: string): string {
  try {
    const v = localStorage.getItem(`sealdesk.${name}`);
    return v && among.includes(v) ? v : otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(name: string, value: string) {
  try {
    localStorage.setItem(`sealdesk.${name}`, value);
  } catch {
    // It lasts as long as the page.
  }
}
