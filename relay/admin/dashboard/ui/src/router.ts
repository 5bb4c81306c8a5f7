// Where the person is: the part of the address behind the #, as a path and a query, so that every view can be
// bookmarked, sent to somebody and gone back to, and the relay serves one page.
import { signal } from "@preact/signals";

export interface Route {
  path: string[]; // its parts, unescaped
  query: URLSearchParams;
}

function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { path: path.split("/").filter(Boolean).map(unescape), query: new URLSearchParams(query) };
}

function unescape(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = signal<Route>(parse(location.hash));

addEventListener("hashchange", () => (route.value = parse(location.hash)));

type Query = Record<string, string | undefined> | URLSearchParams;

/** Writes the address of a view, without the parts of the query that are empty. */
export function href(path: string[], query: Query = {}): string {
  const pairs = query instanceof URLSearchParams ? [...query] : Object.entries(query);
  const kept = new URLSearchParams(pairs.filter((pair): pair is [string, string] => Boolean(pair[1])));
  const text = kept.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text && `?${text}`}`;
}

export function go(path: string[], query: Query = {}) {
  location.hash = href(path, query);
}

/** Changes the query of the view that is shown, without a new entry in the history. */
export function refine(query: Query) {
  history.replaceState(null, "", href(route.value.path, query));
  route.value = parse(location.hash);
}
