// What is looked for among the deliveries. It lives in the query of the address; ranges like "1h" are kept as such
// there, so that a bookmark means the last hour of the day it is opened.
import type { Delivery } from "./api";

export const ranges = [
  ["", "Any time"],
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
  ["custom", "Between…"],
] as const;

const lengths: Record<string, number> = { "15m": 900e3, "1h": 3600e3, "24h": 86400e3, "7d": 7 * 86400e3 };

const plain = ["destination", "state", "event", "class", "q"] as const;

/** The filter as the API wants it, its times fixed. */
export type ApiFilter = Partial<Record<(typeof plain)[number] | "since" | "until", string>>;

export function apiFilter(query: URLSearchParams, from: number): ApiFilter {
  const filter: ApiFilter = {};
  for (const name of plain) {
    const value = query.get(name)?.trim();
    if (value) filter[name] = value;
  }
  const length = lengths[query.get("range") ?? ""];
  if (length) filter.since = new Date(from - length).toISOString();
  if (query.get("range") === "custom") {
    for (const name of ["since", "until"] as const) {
      const time = Date.parse(query.get(name) ?? ""); // as typed: the browser's local time
      if (!Number.isNaN(time)) filter[name] = new Date(time).toISOString();
    }
  }
  return filter;
}

/** Whether a delivery that the stream tells of belongs into the list. The relay judges by the same rules. */
export function matches(d: Delivery, f: ApiFilter): boolean {
  if (f.destination && d.destination !== f.destination) return false;
  if (f.state && d.state !== f.state) return false;
  if (f.event && d.event !== f.event) return false;
  if (f.class && d.last?.class !== f.class) return false;
  const at = Date.parse(d.accepted_at);
  if (f.since && at < Date.parse(f.since)) return false;
  if (f.until && at >= Date.parse(f.until)) return false;
  if (!f.q) return true;
  const text = f.q.toLowerCase();
  return [d.id, d.message_id, d.event, d.order_key, d.reason, d.last?.error].some((s) => s?.toLowerCase().includes(text));
}

/** Whether anything is filtered at all. */
export const filtered = (query: URLSearchParams) => [...query.values()].some(Boolean);
