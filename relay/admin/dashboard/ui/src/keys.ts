// The keyboard. Everything is reachable by Tab and Enter as well; these are shortcuts.
import { signal } from "@preact/signals";
import { at, post } from "./api";
import { go, route } from "./router";
import { attempt } from "./ui";

export const helping = signal(false);

/** The delivery whose replay waits for a second key, so that no letter typed by accident sends anything. */
export const replaying = signal<{ id: string; pending: boolean } | null>(null);

export const shortcuts = [
  ["/", "Search the deliveries"],
  ["j", "Next line"],
  ["k", "Line before"],
  ["Enter", "Open"],
  ["r", "Replay the delivery"],
  ["o", "Overview"],
  ["d", "Deliveries"],
  ["t", "Light, dark or as the system"],
  ["Esc", "Close, or go back"],
  ["?", "These shortcuts"],
] as const;

function step(by: 1 | -1) {
  const lines = [...document.querySelectorAll<HTMLElement>("main [data-row]")];
  const i = lines.indexOf(document.activeElement as HTMLElement);
  const target = lines[i < 0 ? (by > 0 ? 0 : lines.length - 1) : Math.min(Math.max(i + by, 0), lines.length - 1)];
  target?.focus();
  target?.scrollIntoView({ block: "nearest" });
}

function search() {
  const field = document.querySelector<HTMLInputElement>("input[data-search]");
  if (field) {
    field.focus();
    field.select();
    return;
  }
  go(["deliveries"]);
  // The view is there after the next rendering.
  setTimeout(() => document.querySelector<HTMLInputElement>("input[data-search]")?.focus(), 50);
}

function askReplay() {
  const focused = document.activeElement as HTMLElement | null;
  const { path } = route.value;
  const row = focused?.dataset.state ? focused.dataset : null;
  if (row?.row) replaying.value = { id: row.row, pending: row.state === "pending" };
  else if (path[0] === "deliveries" && path[1]) {
    replaying.value = { id: path[1], pending: !document.querySelector("[data-replay]") };
  }
}

export const replay = (id: string) => attempt(() => post(at("deliveries", id, "replay")), "Replay begun");

function back() {
  document.querySelector<HTMLAnchorElement>("main [data-back]")?.click();
}

export function onKey(e: KeyboardEvent, toggleTheme: () => void) {
  if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || e.isComposing) return;
  if (document.querySelector("dialog[open]")) return; // it has the keyboard, Escape included
  const target = e.target as HTMLElement;
  if (target.closest("input, textarea, select")) {
    if (e.key === "Escape") target.blur();
    return;
  }
  const actions: Record<string, () => void> = {
    "/": search,
    j: () => step(1),
    k: () => step(-1),
    r: askReplay,
    o: () => go([]),
    d: () => go(["deliveries"]),
    t: toggleTheme,
    "?": () => (helping.value = true),
    Escape: back,
  };
  const action = actions[e.key];
  if (!action) return;
  e.preventDefault();
  action();
}
