import { useSignal, type Signal } from "@preact/signals";
import { useCallback, useEffect, useRef } from "preact/hooks";
import { signedOut } from "./api";
import { listen } from "./live";

export interface Loaded<T> {
  data: Signal<T | null>;
  error: Signal<Error | null>;
  reload: () => void;
}

/**
 * Loads what key stands for, again after each change of key, after a gap in the stream, and after a sign-in. What was
 * loaded before stays until the new is there, so that nothing jumps; it goes at once if the key is another.
 */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const data = useSignal<T | null>(null);
  const error = useSignal<Error | null>(null);
  const control = useRef<AbortController | null>(null);
  const latest = useRef(load);
  latest.current = load;
  const reload = useCallback(() => {
    control.current?.abort();
    const mine = (control.current = new AbortController());
    latest.current(mine.signal).then(
      (value) => {
        if (mine.signal.aborted) return;
        data.value = value;
        error.value = null;
      },
      (err: Error) => {
        if (!mine.signal.aborted) error.value = err;
      },
    );
  }, []);
  useEffect(() => {
    data.value = null;
    error.value = null;
    reload();
    const stopGap = listen("gap", reload);
    let first = true;
    const stopToken = signedOut.subscribe((out) => {
      if (!first && !out) reload();
      first = false;
    });
    return () => {
      control.current?.abort();
      stopGap();
      stopToken();
    };
  }, [key]);
  return { data, error, reload };
}

/** Calls f every so many milliseconds while the page can be seen. */
export function useEvery(ms: number, f: () => void) {
  const latest = useRef(f);
  latest.current = f;
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) latest.current();
    }, ms);
    return () => clearInterval(timer);
  }, [ms]);
}

/** Puts the name of the view into the title of the tab. */
export function useTitle(title: string) {
  useEffect(() => {
    document.title = title ? `${title} · Postern` : "Postern";
  }, [title]);
}
