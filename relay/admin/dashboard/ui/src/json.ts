// JSON laid out for reading. The text is cut into tokens and set anew, never parsed into values: numbers keep all of
// their digits and repeated keys stay, so what is shown is what was sent.

export type Kind = "key" | "string" | "number" | "word" | "punct" | "space";
export interface Token {
  kind: Kind;
  text: string;
}

const pattern = /[ \t\r\n]+|"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[{}[\],:]/y;

/** Cuts valid JSON into its tokens without white space; null if the text is none. */
function scan(text: string): string[] | null {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const tokens: string[] = [];
  pattern.lastIndex = 0;
  while (pattern.lastIndex < text.length) {
    const found = pattern.exec(text)?.[0];
    if (!found) return null;
    if (!/^[ \t\r\n]/.test(found)) tokens.push(found);
  }
  return tokens;
}

/** Sets JSON with two spaces a level; null if the text is none. */
export function pretty(text: string): Token[] | null {
  const tokens = scan(text);
  if (!tokens) return null;
  const out: Token[] = [];
  let depth = 0;
  const line = () => out.push({ kind: "space", text: `\n${"  ".repeat(depth)}` });
  tokens.forEach((token, i) => {
    const next = tokens[i + 1];
    switch (token) {
      case "{":
      case "[":
        out.push({ kind: "punct", text: token });
        depth++;
        if (next !== "}" && next !== "]") line();
        return;
      case "}":
      case "]":
        depth--;
        if (tokens[i - 1] !== "{" && tokens[i - 1] !== "[") line();
        out.push({ kind: "punct", text: token });
        return;
      case ",":
        out.push({ kind: "punct", text: token });
        line();
        return;
      case ":":
        out.push({ kind: "punct", text: ": " });
        return;
    }
    const kind = token[0] === '"' ? (next === ":" ? "key" : "string") : /^[tfn]/.test(token) ? "word" : "number";
    out.push({ kind, text: token });
  });
  return out;
}

/** Writes a config as YAML would have it: every line with its depth. */
export function outline(value: unknown, depth = 0): Token[] {
  const indent = "  ".repeat(depth);
  if (Array.isArray(value)) {
    return value.flatMap((item) => {
      const inner = isNested(item) ? outline(item, depth + 1) : [scalar(item), { kind: "space", text: "\n" } as Token];
      const first = inner[0];
      if (isNested(item) && first) inner[0] = { ...first, text: first.text.trimStart() };
      return [{ kind: "punct", text: `${indent}- ` } as Token, ...inner];
    });
  }
  return Object.entries(value as Record<string, unknown>).flatMap(([key, item]) => [
    { kind: "key", text: `${indent}${key}` } as Token,
    { kind: "punct", text: isNested(item) ? ":\n" : ": " } as Token,
    ...(isNested(item) ? outline(item, depth + 1) : [scalar(item), { kind: "space", text: "\n" } as Token]),
  ]);
}

function isNested(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length > 0;
}

function scalar(value: unknown): Token {
  if (typeof value === "string") {
    const plain =
      /^([A-Za-z/][\w ./:;,+@%*-]*|\d+[A-Za-df-z][\w/]*)$/.test(value) && !/: |^(true|false|null|yes|no|on|off|0[xob].*)$/i.test(value);
    return { kind: "string", text: plain ? value : JSON.stringify(value) };
  }
  if (typeof value === "number") return { kind: "number", text: String(value) };
  return { kind: "word", text: JSON.stringify(value) ?? "null" };
}
