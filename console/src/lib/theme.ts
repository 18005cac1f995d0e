import { applyMode, Mode } from '@cloudscape-design/global-styles';

let mode: Mode = Mode.Light;
try {
  const kept = localStorage.getItem('sealdesk.mode');
  mode = kept === 'dark' || (!kept && matchMedia('(prefers-color-scheme: dark)').matches) ? Mode.Dark : Mode.Light;
} catch {
  // No storage: light.
}

export const isDark = () => mode === Mode.Dark;

export function setDark(dark: boolean) {
  mode = dark ? Mode.Dark : Mode.Light;
  applyMode(mode);
  try {
    localStorage.setItem('sealdesk.mode', dark ? 'dark' : 'light');
  } catch {
    // It lasts as long as the page.
  }
}

applyMode(mode);
