// Every text has its Japanese. Texts are what t() is given, directly or by way of one of the tables
// named below, and the answers of the JSON parser.

import { expect, it } from 'vitest';
import { ja } from '../src/lib/ja';

const sources = import.meta.glob<string>(['../src/**/*.{ts,tsx}', '!../src/ja/**'], { query: '?raw', import: 'default', eager: true });

// Tables whose strings go through t().
const TABLES = /^(?:export )?const (TEXT|TITLE|ABOUT|USAGE|STATE|ATTRIBUTES|SPANS|NEXT|SERVICES)\b[\s\S]*?^[\]}];/gm;

const literals = (code: string) => [...code.matchAll(/'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)"/g)].map((m) => (m[1] ?? m[2]).replace(/\\(['"])/g, '$1'));

/** The arguments of t(...), up to the bracket that closes it. */
function* calls(code: string): Generator<string> {
  for (const m of code.matchAll(/(?<![\w.])t\(/g)) {
    const start = m.index + m[0].length;
    let depth = 1;
    let at = start;
    for (let quote = ''; at < code.length && depth > 0; at++) {
      const c = code[at];
      if (quote) {
        if (c === '\\') at++;
        else if (c === quote) quote = '';
      } else if (`'"\``.includes(c)) quote = c;
      else if (c === '(') depth++;
      else if (c === ')') depth--;
    }
    yield code.slice(start, at - 1);
  }
}

// What is no text: identifiers, paths, states that stay as the API has them.
const isText = (s: string) => /[A-Za-z]{2}/.test(s) && !/^[a-z ]+$/.test(s) && !/^[/^]/.test(s) && !/^[A-Z0-9_]{3,}$/.test(s) && !/^[a-z]+([A-Z][a-z]*)+$/.test(s) && !/^(ReadOnly|EventName|Username|EventSource|ResourceName|ResourceType|EventId|AccessKeyId)$/.test(s);

it('has a Japanese for every text', () => {
  const missing: Record<string, string[]> = {};
  for (const [f, code] of Object.entries(sources)) {
    const found = new Set<string>();
    for (const c of calls(code)) {
      // The condition of a ternary, and a comparison, are not texts.
      const said = c.replace(/[!=]==? *'[^']*'/g, '').replace(/\[(?:[\w.]+ as )?'[^']*'\]/g, '');
      for (const s of literals(said)) if (s !== '') found.add(s);
    }
    for (const [table] of code.matchAll(TABLES)) for (const s of literals(table)) if (isText(s)) found.add(s);
    if (f.endsWith('/lib/json.ts')) for (const m of code.matchAll(/fail\([^;]*?'([^']+)'(?: : '([^']+)')?/g)) for (const s of m.slice(1)) if (s) found.add(s);
    const lacking = [...found].filter((s) => !(s in ja));
    if (lacking.length) missing[f] = lacking;
  }
  if (Object.keys(missing).length) throw new Error(`no Japanese in src/ja for ${JSON.stringify(missing, null, 1)}`);
});

it('has no Japanese that is only English again', () => {
  const same = Object.entries(ja).filter(([en, j]) => en === j && / [a-z]{3,}$/.test(en)); // names stay as they are
  expect(same).toEqual([]);
});
