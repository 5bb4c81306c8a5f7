// A body and a list of headers, as they were sent or came in. All of it is foreign text: it becomes text nodes and
// nothing else (T28).
import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { BodyText, Field } from "./api";
import { bytes, decode } from "./format";
import { pretty, type Token } from "./json";
import { CopyButton, Segmented } from "./ui";

const coloured = 60_000; // characters; a longer body is laid out in one colour, which costs the browser less
const dumped = 512; // bytes of a binary body

/** The person's choice, for all bodies. */
const mode = signal<"pretty" | "raw">("pretty");

export function Tokens({ tokens }: { tokens: Token[] }) {
  return (
    <>
      {tokens.map((t, i) =>
        t.kind === "space" || t.kind === "punct" ? t.text : (
          <span key={i} class={`t-${t.kind}`}>
            {t.text}
          </span>
        ),
      )}
    </>
  );
}

/** Sixteen bytes a line, in hexadecimal and as text. */
function dump(data: Uint8Array): string {
  const lines: string[] = [];
  for (let i = 0; i < Math.min(data.length, dumped); i += 16) {
    const row = [...data.subarray(i, i + 16)];
    const hex = row.map((b) => b.toString(16).padStart(2, "0")).join(" ");
    const text = row.map((b) => (b >= 32 && b < 127 ? String.fromCharCode(b) : "·")).join("");
    lines.push(`${i.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}

interface BodyProps {
  of: BodyText;
  label: string;
  note?: string;
  raw?: boolean; // its bytes are the point: it is never laid out
  onDownload?: () => void;
}

export function Body({ of, label, note, raw, onDownload }: BodyProps) {
  const text = of.body;
  const binary = useMemo(() => (of.body_base64 ? decode(of.body_base64) : null), [of.body_base64]);
  const tokens = useMemo(() => (text && !raw ? pretty(text) : null), [text, raw]);
  const size = binary?.length ?? new TextEncoder().encode(text ?? "").length;
  const laid = tokens && mode.value === "pretty";
  return (
    <div class="body">
      <div class="body-head">
        <span class="body-title">{label}</span>
        <span class="muted">{size > 0 ? bytes(size) : "empty"}</span>
        <span class="grow" />
        {tokens && (
          <Segmented
            label="How the body is shown"
            value={mode.value}
            options={[["pretty", "Pretty"], ["raw", "Raw"]] as const}
            onChange={(v) => (mode.value = v)}
          />
        )}
        {text && <CopyButton text={text} what="Body" />}
        {onDownload && (
          <button type="button" class="ghost small" onClick={onDownload}>
            Download
          </button>
        )}
      </div>
      {(text || binary) && (
        <pre class="code" tabIndex={0} role="region" aria-label={label}>
          <code>
            {binary ? dump(binary) : !laid ? text : text!.length > coloured ? tokens.map((t) => t.text).join("") : <Tokens tokens={tokens} />}
          </code>
        </pre>
      )}
      {binary && binary.length > dumped && <p class="note">No text: the first {bytes(dumped)} are shown.</p>}
      {note && <p class="note">{note}</p>}
    </div>
  );
}

export function Headers({ fields, open = true }: { fields?: Field[] | null; open?: boolean }) {
  if (!fields?.length) return <p class="note">No headers.</p>;
  return (
    <details class="headers" open={open}>
      <summary>
        Headers <span class="muted">{fields.length}</span>
      </summary>
      <dl>
        {fields.map((f, i) => (
          <div key={i}>
            <dt>{f.name}</dt>
            <dd class={f.value.includes("***") ? "masked" : ""}>{f.value}</dd>
          </div>
        ))}
      </dl>
    </details>
  );
}
