// The small parts that every view is made of.
import { signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Problem, type State } from "./api";
import { absolute, now, relative } from "./format";
import { stateTones, type Tone } from "./health";

const icons = {
  copy: "M9 9h10v10H9zM5 15V5h10",
  check: "m5 13 4 4L19 7",
  replay: "M4 12a8 8 0 1 1 2.6 5.9M4 12V6m0 6h6",
  pause: "M9 6v12M15 6v12",
  play: "M8 5.5v13l10-6.5z",
  send: "M5 12h14m-6-6 6 6-6 6",
  bolt: "M13 3 5 14h6l-1 7 9-11h-6z",
  stop: "M6 6l12 12M18 6 6 18",
  down: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  search: "M10.5 17a6.5 6.5 0 1 1 0-13 6.5 6.5 0 0 1 0 13zm5-1.5 4.5 4.5",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2m0 16v2M4.9 4.9l1.400 1.400m11.400 11.400 1.400 1.400M2 12h2m16 0h2M4.9 19.100l1.400-1.400M17.700 6.300l1.400-1.400",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  keyboard: "M3 7h18v10H3zM7 11h.01M11 11h.01M15 11h.01M8 14h8",
  back: "m14 6-6 6 6 6",
  inbox: "M4 13 7 5h10l3 8v6H4zM4 13h5l1.5 2.5h3L15 13h5",
  warn: "M12 4 2.5 20h19zM12 10v4m0 3h.01",
};

export function Icon({ name, size = 16 }: { name: keyof typeof icons; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      <path d={icons[name]} />
    </svg>
  );
}

export function Badge({ tone, children, title }: { tone: Tone; children: ComponentChildren; title?: string }) {
  return (
    <span class={`badge ${tone}`} title={title}>
      {children}
    </span>
  );
}

export function StateBadge({ state }: { state: State }) {
  return <Badge tone={stateTones[state] ?? "quiet"}>{state[0]!.toUpperCase() + state.slice(1)}</Badge>;
}

/** A time as its distance from now; the exact one appears on hover. */
export function Time({ at }: { at: string }) {
  return (
    <time dateTime={at} title={absolute(at)}>
      {relative(at, now.value)}
    </time>
  );
}

/** Writes to the clipboard and says so. */
export async function copy(text: string, what: string) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch {
    toast("The browser does not let the page use the clipboard", "bad");
  }
}

export function CopyButton({ text, what }: { text: string; what: string }) {
  const done = useSignal(false);
  return (
    <button
      class="ghost small"
      type="button"
      aria-label={`Copy ${what.toLowerCase()}`}
      title={`Copy ${what.toLowerCase()}`}
      onClick={async () => {
        await copy(text, what);
        done.value = true;
        setTimeout(() => (done.value = false), 1500);
      }}
    >
      <Icon name={done.value ? "check" : "copy"} size={14} />
    </button>
  );
}

export function Segmented<T extends string>(props: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  return (
    <div class="segmented" role="group" aria-label={props.label}>
      {props.options.map(([value, label]) => (
        <button
          key={value}
          type="button"
          aria-pressed={value === props.value ? "true" : "false"}
          onClick={() => props.onChange(value)}
        >
          {label}
        </button>
      ))}
    </div>
  );
}

/** What a list says when there is nothing in it; with page set, the whole view. */
export function Empty({ title, children, page }: { title: string; children?: ComponentChildren; page?: boolean }) {
  return (
    <div class="empty">
      <span class="empty-icon">
        <Icon name="inbox" size={24} />
      </span>
      {page ? <h1 tabIndex={-1}>{title}</h1> : <h2>{title}</h2>}
      {children && <p>{children}</p>}
    </div>
  );
}

/** What a part of a view says when it could not be loaded; with page set, the whole view. */
export function Failure({ error, retry, page }: { error: Error; retry: () => void; page?: boolean }) {
  const final = error instanceof Problem && (error.status === 401 || error.status === 404); // trying again is of no use
  const title = error instanceof Problem && error.title ? error.title : "That did not work";
  return (
    <div class="empty" role="alert">
      <span class="empty-icon bad">
        <Icon name="warn" size={24} />
      </span>
      {page ? <h1 tabIndex={-1}>{title}</h1> : <h2>{title}</h2>}
      <p>{error.message}</p>
      {!final && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Grey bars in the place of what is being loaded. */
export function Skeleton({ rows = 6, tall = false }: { rows?: number; tall?: boolean }) {
  return (
    <div class={tall ? "skeleton tall" : "skeleton"} role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => (
        <span key={i} />
      ))}
    </div>
  );
}

interface Toast {
  id: number;
  text: string;
  tone: Tone;
}

const toasts = signal<Toast[]>([]);
let lastToast = 0;

/** Says something for a few seconds, also to a screen reader. */
export function toast(text: string, tone: Tone = "good") {
  const id = ++lastToast;
  toasts.value = [...toasts.value.slice(-3), { id, text, tone }];
  setTimeout(() => (toasts.value = toasts.value.filter((t) => t.id !== id)), tone === "bad" ? 8000 : 4000);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((t) => (
        <div key={t.id} class={`toast ${t.tone}`}>
          <Icon name={t.tone === "bad" ? "warn" : "check"} />
          <span>{t.text}</span>
        </div>
      ))}
    </div>
  );
}

/** Does something that may fail, and says how it went. */
export async function attempt(action: () => Promise<unknown>, done: string): Promise<boolean> {
  try {
    await action();
    toast(done);
    return true;
  } catch (err) {
    toast(err instanceof Error ? err.message : String(err), "bad");
    return false;
  }
}

/** A modal dialog; the browser keeps the focus inside, gives it back, and closes on Escape. Without onClose it stays. */
export function Dialog(props: { title: string; onClose?: () => void; children: ComponentChildren; wide?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const dialog = ref.current!;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  return (
    <dialog
      ref={ref}
      class={props.wide ? "wide" : ""}
      aria-labelledby="dialog-title"
      onCancel={(e) => {
        e.preventDefault();
        props.onClose?.();
      }}
      onClose={() => {
        // When Escape is pressed once more, browsers close it whatever we say.
        if (!ref.current) return; // it is over for us too
        if (props.onClose) props.onClose();
        else ref.current.showModal();
      }}
      onClick={(e) => {
        if (e.target === ref.current) props.onClose?.();
      }}
    >
      <div class="dialog-body">
        <h2 id="dialog-title">{props.title}</h2>
        {props.children}
      </div>
    </dialog>
  );
}
