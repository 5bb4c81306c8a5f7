// The list of deliveries. It outlives its view, so that a person who looks into one delivery and goes back finds the
// list as it was, and up to date: the stream of changes is applied meanwhile.
import { batch, signal } from "@preact/signals";
import { get, type Delivery } from "./api";
import { apiFilter, matches, type ApiFilter } from "./filter";
import { listen } from "./live";

const page = 50;
const most = 2000; // rows kept while new ones come in from above
const rest = 500; // rows kept when that is too many
const settle = 250; // milliseconds over which changes are gathered, so that a flood costs a few renderings a second

export const rows = signal<Delivery[]>([]);
export const waiting = signal<Delivery[]>([]); // came in while the person reads further down, or has stopped the list
export const fresh = signal<ReadonlySet<string>>(new Set()); // just come in, for a glimpse of colour
export const state = signal<"loading" | "ready" | "more">("loading");
export const failure = signal<Error | null>(null);
export const next = signal<string | null>(null);
export const live = signal(true);

let key: string | null = null;
let filter: ApiFilter = {};
let control = new AbortController();
let reading = false; // further down
let asked = false; // for the first page, which may be older than the changes that come meanwhile

interface Page {
  deliveries: Delivery[];
  next_cursor: string | null;
}

/** Shows what a query stands for; it returns whether that was shown already. */
export function show(query: URLSearchParams): boolean {
  const wanted = query.toString();
  if (wanted === key) return true;
  key = wanted;
  batch(() => {
    rows.value = [];
    waiting.value = [];
    next.value = null;
    state.value = "loading";
  });
  void load(query);
  return false;
}

/** Loads the first page anew, and keeps what is shown until it is there. */
export function refresh() {
  if (key !== null) void load(new URLSearchParams(key));
}

async function load(query: URLSearchParams) {
  control.abort();
  const mine = (control = new AbortController());
  filter = apiFilter(query, Date.now());
  asked = true;
  try {
    const found = await get<Page>(`deliveries?${new URLSearchParams({ ...filter, limit: String(page) })}`, mine.signal);
    if (mine.signal.aborted) return;
    asked = false;
    batch(() => {
      rows.value = found.deliveries;
      next.value = found.next_cursor;
      waiting.value = [];
      failure.value = null;
      state.value = "ready";
    });
  } catch (err) {
    if (mine.signal.aborted) return;
    asked = false;
    batch(() => {
      failure.value = err as Error;
      state.value = "ready";
    });
  }
}

/** Adds the following page to the list. */
export async function more() {
  const cursor = next.value;
  if (!cursor || state.value !== "ready") return;
  state.value = "more";
  const mine = control;
  const query = new URLSearchParams({ ...filter, limit: String(page) });
  if (cursor.startsWith(cut)) query.set("until", cursor.slice(cut.length));
  else query.set("cursor", cursor);
  try {
    const found = await get<Page>(`deliveries?${query}`, mine.signal);
    if (mine.signal.aborted) return;
    const known = new Set(rows.value.map((d) => d.id));
    batch(() => {
      rows.value = [...rows.value, ...found.deliveries.filter((d) => !known.has(d.id))];
      next.value = found.next_cursor;
      state.value = "ready";
    });
  } catch (err) {
    if (mine.signal.aborted) return;
    batch(() => {
      failure.value = err as Error;
      state.value = "ready";
    });
  }
}

const cut = "until "; // begins a cursor of our own, for a list whose end was cut off

/** Tells whether the person reads further down, where nothing may move. */
export function readFurtherDown(yes: boolean) {
  reading = yes;
}

/** Puts what waits into the list. */
export function take() {
  const late = waiting.value;
  waiting.value = [];
  insert(late);
}

function insert(found: Delivery[]) {
  let all = [...found, ...rows.value].sort(
    (a, b) => Date.parse(b.accepted_at) - Date.parse(a.accepted_at) || (a.id < b.id ? 1 : -1),
  );
  batch(() => {
    if (all.length > most) {
      all = all.slice(0, rest);
      next.value = cut + new Date(Date.parse(all.at(-1)!.accepted_at) + 1).toISOString();
    }
    rows.value = all;
    fresh.value = new Set(found.map((d) => d.id));
  });
}

const older = (a: Delivery, b: Delivery) => Date.parse(a.accepted_at) < Date.parse(b.accepted_at);

const changed = new Map<string, Delivery>();

function apply() {
  if (asked) {
    setTimeout(apply, settle);
    return;
  }
  const news = new Map(changed);
  changed.clear();
  if (key === null) return;
  batch(() => {
    const replace = (d: Delivery) => {
      const changedOne = news.get(d.id);
      news.delete(d.id);
      return changedOne ?? d;
    };
    rows.value = rows.value.map(replace);
    waiting.value = waiting.value.map(replace);
    const last = rows.value.at(-1);
    // What is older than the last row comes with its page.
    const found = [...news.values()].filter((d) => matches(d, filter) && !(next.value && last && older(d, last)));
    if (found.length === 0) return;
    if (reading || !live.value) waiting.value = [...found, ...waiting.value].slice(0, most);
    else insert(found);
  });
}

listen("delivery", (d) => {
  if (changed.size === 0) setTimeout(apply, settle);
  changed.set(d.id, d);
});
listen("gap", refresh);
