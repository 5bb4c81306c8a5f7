// A request as a command for a POSIX shell. What it holds came from outside, so nothing of it may reach the shell or
// curl as anything but a value.
import type { BodyText, Field } from "./api";

export interface CurlRequest extends BodyText {
  method: string;
  url: string;
  headers?: Field[] | null;
}

const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

// A terminal acts on these even inside of quotes, and a shell cannot hold NUL.
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

/** Writes the command. A body that is no plain text goes through base64. */
export function curl(request: CurlRequest): string {
  const parts = [`curl --globoff --request ${quote(request.method)} ${quote(request.url)}`];
  for (const { name, value } of request.headers ?? []) {
    if (/^(host|content-length)$/i.test(name) || controls.test(name + value)) continue; // curl writes its own
    parts.push(`--header ${quote(value === "" ? `${name};` : `${name}: ${value}`)}`);
  }
  let before = "";
  let base64 = request.body_base64;
  if (request.body !== undefined && controls.test(request.body)) {
    base64 = btoa(Array.from(new TextEncoder().encode(request.body), (b) => String.fromCharCode(b)).join(""));
  }
  if (base64) {
    before = `printf %s ${quote(base64)} | base64 -d | `;
    parts.push("--data-binary @-");
  } else if (request.body) {
    parts.push(`--data-raw ${quote(request.body)}`); // not --data, for which a leading @ names a file
  }
  return before + parts.join(" \\\n  ");
}
