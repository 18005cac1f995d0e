// English and Japanese. The English text is the key; what has no Japanese shows in
// English, and a test tells which.

import { ja } from './ja';

export type Language = 'en' | 'ja';

let language: Language = 'en';
try {
  const kept = localStorage.getItem('sealdesk.language');
  language = kept === 'ja' || kept === 'en' ? kept : navigator.language.startsWith('ja') ? 'ja' : 'en';
} catch {
  // No storage: English.
}

export const getLanguage = () => language;

export function setLanguage(l: Language) {
  language = l;
  document.documentElement.lang = l;
  try {
    localStorage.setItem('sealdesk.language', l);
  } catch {
    // It lasts as long as the page.
  }
}

export const t = (text: string): string => (language === 'ja' ? (ja[text] ?? text) : text);

/** Cloudscape's own texts. */
export const messages = (l: Language) => (l === 'ja' ? import('@cloudscape-design/components/i18n/messages/all.ja') : import('@cloudscape-design/components/i18n/messages/all.en'));
