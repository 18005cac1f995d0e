import { describe, expect, it } from 'vitest';
import { parseJson } from '../src/lib/json';

describe('parseJson', () => {
  it.each(['{}', '[]', '[1, -2.5e3, true, null, "a\\u00e9\\n"]', '{"a": {"b": [{"c": ""}]}}', ' "x" ', '{"__proto__": 1}'])('reads %s as JSON.parse does', (text) => {
    expect(parseJson(text)).toEqual(JSON.parse(text));
  });

  it.each([
    ['{\n  "a": [,]\n}', 2, 9, 'a value is expected'],
    ['{\n  "a": 1,\n}', 2, 9, 'nothing after it'],
    ['{"a" 1}', 1, 6, 'colon'],
    ['{"a": 1 "b": 2}', 1, 9, 'comma'],
    ['{"a": "x\ny"}', 1, 7, 'string'],
    ["{'a': 1}", 1, 2, 'double quotes'],
    ['{"a": 1', 1, 8, 'ends before }'],
    ['{"a": 1, "a": 2}', 1, 10, 'twice'],
    ['{} x', 1, 4, 'after the end'],
    ['', 1, 1, 'ends here'],
    ['01', 1, 2, 'after the end'],
  ])('tells where %j is wrong', (text, line, column, what) => {
    expect(() => parseJson(text)).toThrowError(new RegExp(`Line ${line}, column ${column}: .*${what}`));
  });

  it('takes exactly what JSON.parse takes, but for names given twice', () => {
    const seeds = ['{"a":[1,2,{"b":"c\\""}],"d":null}', '[true,false,-0.5e+7]'];
    let seed = 7;
    const random = (n: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    for (let i = 0; i < 4000; i++) {
      const s = seeds[i % 2];
      const at = random(s.length);
      const text = s.slice(0, at) + ['', '{', '"', ',', '0', '\\', ']', ' ', 'e', '\n'][random(10)] + s.slice(at + random(2));
      let want: unknown;
      let ok = true;
      try {
        want = JSON.parse(text);
      } catch {
        ok = false;
      }
      if (ok) expect(parseJson(text)).toEqual(want);
      else expect(() => parseJson(text), text).toThrow();
    }
  });
});
