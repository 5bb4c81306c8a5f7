// The stream of changes. It is read with fetch and not with EventSource, which cannot send a token and hides why it
// failed. One stream serves all pages; after a gap the pages are told to ask again for what they show.
import { signal } from "@preact/signals";
import { ask, signedOut, type Delivery, type DestinationState } from "./api";

/** What the pages may listen to; gap means that changes may have been missed. */
interface Events {
  delivery: Delivery;
  destination: DestinationState;
  reload: unknown;
  gap: null;
}

export const connection = signal<"connecting" | "live" | "lost">("connecting");

const silence = 40_000; // the relay says something every 15 s
const longestWait = 15_000;

type Listener<K extends keyof Events> = (data: Events[K]) => void;
const listeners: { [K in keyof Events]: Set<Listener<K>> } = {
  delivery: new Set(),
  destination: new Set(),
  reload: new Set(),
  gap: new Set(),
};

/** Calls listener on each event until the returned function is called. */
export function listen<K extends keyof Events>(event: K, listener: Listener<K>): () => void {
  listeners[event].add(listener);
  return () => void listeners[event].delete(listener);
}

function tell<K extends keyof Events>(event: K, data: Events[K]) {
  for (const listener of listeners[event]) listener(data);
}

/** Reads the events of a stream (HTML standard, section 9.2.6), as far as the relay writes them. */
export function eventReader(emit: (event: string, data: string) => void): (text: string) => void {
  let rest = "";
  let name = "";
  let data: string[] = [];
  return (text) => {
    rest += text;
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) emit(name || "message", data.join("\n"));
        name = "";
        data = [];
      } else if (line.startsWith("event:")) {
        name = line.slice(6).trim();
      } else if (line.startsWith("data:")) {
        data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
  };
}

/** Reads one stream to its end. */
async function read(connected: () => void) {
  const control = new AbortController();
  let timer = setTimeout(() => control.abort(), silence);
  try {
    const response = await ask("events", { signal: control.signal, headers: { Accept: "text/event-stream" } });
    connected();
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    const feed = eventReader((event, data) => {
      if (event in listeners && event !== "gap") tell(event as keyof Events, JSON.parse(data));
    });
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => control.abort(), silence);
      feed(value);
    }
  } finally {
    clearTimeout(timer);
    control.abort();
  }
}

/** Keeps a stream open for as long as the page lives. */
export async function follow() {
  let wait = 500;
  for (let first = true; ; first = false) {
    try {
      await read(() => {
        connection.value = "live";
        wait = 500;
        if (!first) tell("gap", null);
      });
    } catch {
      if (signedOut.value) await signIn();
    }
    if (connection.value === "live" || wait > 1000) connection.value = "lost";
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, longestWait);
  }
}

/** Waits until there is a token to try. */
function signIn(): Promise<void> {
  return new Promise((resolve) => {
    const stop = signedOut.subscribe((out) => {
      if (!out) queueMicrotask(() => (stop(), resolve()));
    });
  });
}
