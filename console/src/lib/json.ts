// Where a JSON text goes wrong. JSON.parse tells browsers' own wording, often without the place,
// and takes a name that is given twice.

export class JsonMistake extends Error {
  constructor(
    readonly what: string,
    readonly line: number,
    readonly column: number,
  ) {
    super(`Line ${line}, column ${column}: ${what}`);
  }
}

/** Parses; throws a JsonMistake at the first mistake. RFC 8259, and no name twice in an object. */
export function parseJson(text: string): unknown {
  let at = 0;
  const fail = (what: string, where = at): never => {
    const before = text.slice(0, where).split('\n');
    throw new JsonMistake(what, before.length, before[before.length - 1].length + 1);
  };
  const space = () => {
    while (at < text.length && ' \t\n\r'.includes(text[at])) at++;
  };
  const take = (re: RegExp) => {
    re.lastIndex = at;
    const m = re.exec(text);
    if (m) at += m[0].length;
    return m?.[0];
  };
  const string = (): string => {
    const start = at;
    const raw = take(/"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y);
    return raw === undefined ? fail('this string does not end, or has a character that must be escaped', start) : JSON.parse(raw);
  };
  // Reads what is between open (already read) and close.
  const list = (close: string, item: () => void) => {
    space();
    if (text[at] === close) return void at++;
    for (;;) {
      item();
      space();
      if (text[at] === close) return void at++;
      if (text[at] !== ',') fail(at >= text.length ? `the text ends before ${close}` : `a comma or ${close} is missing before this`);
      const comma = at++;
      space();
      if (text[at] === close) fail('there is a comma with nothing after it', comma);
    }
  };
  const value = (depth: number): unknown => {
    space();
    if (depth > 100) fail('this is nested too deeply');
    const c = text[at];
    if (c === '{') {
      at++;
      const out: Record<string, unknown> = {};
      list('}', () => {
        space();
        const start = at;
        if (text[at] !== '"') fail('a name in double quotes is expected here');
        const name = string();
        if (Object.hasOwn(out, name)) fail(`"${name}" is given twice`, start);
        space();
        if (text[at] !== ':') fail('a colon is missing before this');
        at++;
        Object.defineProperty(out, name, { value: value(depth + 1), enumerable: true, configurable: true, writable: true });
      });
      return out;
    }
    if (c === '[') {
      at++;
      const out: unknown[] = [];
      list(']', () => void out.push(value(depth + 1)));
      return out;
    }
    if (c === '"') return string();
    const word = take(/-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y);
    return word === undefined ? fail(at >= text.length ? 'the text ends here; a value is expected' : 'a value is expected here') : JSON.parse(word);
  };
  const out = value(0);
  space();
  if (at < text.length) fail('there is something after the end');
  return out;
}
