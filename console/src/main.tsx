import '@cloudscape-design/global-styles/index.css';
import './lib/theme';
import { I18nProvider } from '@cloudscape-design/components/i18n';
import { Component, type ReactNode, useEffect, useState, useSyncExternalStore } from 'react';
import { createRoot } from 'react-dom/client';
import { BrowserRouter } from 'react-router';
import { getLanguage, type Language, messages, setLanguage } from './lib/i18n';
import { getState, resume, subscribe } from './lib/session';
import { Shell } from './shell';
import { SignIn } from './sign-in';

// A page that fails says so and leaves a way out.
class Boundary extends Component<{ children: ReactNode }, { error: Error | null }> {
  state = { error: null as Error | null };
  static getDerivedStateFromError = (error: Error) => ({ error });
  render() {
    if (!this.state.error) return this.props.children;
    return (
      <main style={{ padding: 32, fontFamily: 'sans-serif' }}>
        <h1>This page failed</h1>
        <p>{this.state.error.message}</p>
        <p>
          <a href="/console/">Reload the console</a>
        </p>
      </main>
    );
  }
}

function App() {
  const [language, set] = useState<Language>(getLanguage());
  const [texts, setTexts] = useState<{ default: object } | null>(null);
  const [ready, setReady] = useState(false);
  const state = useSyncExternalStore(subscribe, getState);
  useEffect(() => {
    setLanguage(language);
    messages(language).then((m) => setTexts(m as never));
  }, [language]);
  useEffect(() => {
    resume().finally(() => setReady(true));
  }, []);
  if (!texts || !ready) return null;
  const change = (l: Language) => {
    setLanguage(l);
    set(l);
  };
  return (
    <I18nProvider locale={language} messages={[texts.default as never]}>
      <BrowserRouter basename="/console" key={language}>
        {state.identity ? <Shell language={language} onLanguage={change} /> : <SignIn language={language} onLanguage={change} notice={state.notice} />}
      </BrowserRouter>
    </I18nProvider>
  );
}

createRoot(document.getElementById('root')!).render(
  <Boundary>
    <App />
  </Boundary>,
);
