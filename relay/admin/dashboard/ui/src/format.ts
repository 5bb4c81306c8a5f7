// Values as a person reads them.
import { signal } from "@preact/signals";

/** The time, once a second; what shows a relative time follows it. */
export const now = signal(Date.now());
setInterval(() => (now.value = Date.now()), 1000);

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const absoluteTime = new Intl.DateTimeFormat("en", {
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23",
  timeZoneName: "short",
});
const clockTime = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clockSeconds = new Intl.DateTimeFormat("en", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

export const number = (n: number) => (n < 100_000 ? count.format(n) : compact.format(n));
export const absolute = (at: string) => absoluteTime.format(new Date(at));
export const clock = (at: string) => clockTime.format(new Date(at));
export const seconds = (at: string) => clockSeconds.format(new Date(at));

/** "1 delivery", "2 deliveries". */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${number(n)} ${n === 1 ? one : many}`;
}

/** A share as a percentage that never rounds up to 100 or down to 0. */
export function percent(share: number): string {
  if (share >= 1) return "100%";
  if (share <= 0) return "0%";
  const shown = Math.min(Math.max(share * 100, 0.1), 99.9);
  return `${shown >= 99 || shown < 1 ? shown.toFixed(1) : Math.round(shown)}%`;
}

/** A length of time in one unit, as of an attempt. */
export function duration(s: number): string {
  if (s < 0.0005) return "0 ms";
  if (s < 1) return `${s < 0.01 ? (s * 1000).toFixed(1) : Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(2)} s`;
  if (s < 120) return `${s.toFixed(s < 60 ? 1 : 0)} s`;
  return span(s);
}

/** A longer length of time, as of a wait. */
export function span(s: number): string {
  if (s < 60) return `${Math.max(0, Math.floor(s))} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  const hours = s / 3600;
  if (hours < 24) {
    const minutes = Math.floor((s % 3600) / 60);
    return hours < 6 && minutes > 0 ? `${Math.floor(hours)} h ${minutes} min` : `${Math.floor(hours)} h`;
  }
  const days = Math.floor(hours / 24);
  return days === 1 ? "1 day" : `${days} days`;
}

/** A time as its distance from now, in either direction. */
export function relative(at: string, from: number): string {
  const s = (new Date(at).getTime() - from) / 1000;
  if (Math.abs(s) < 1.5) return "now";
  return s < 0 ? `${span(-s)} ago` : `in ${span(s)}`;
}

export function bytes(n: number): string {
  if (n < 1024) return `${n} B`;
  if (n < 1024 * 1024) return `${(n / 1024).toFixed(n < 10 * 1024 ? 1 : 0)} KiB`;
  return `${(n / 1024 / 1024).toFixed(1)} MiB`;
}

const phrases: Record<number, string> = {
  200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 301: "Moved Permanently", 302: "Found",
  304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized",
  403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
  413: "Content Too Large", 415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests",
  500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
  504: "Gateway Timeout",
};

/** A status with its phrase (RFC 9110, section 15), if it is a common one. */
export const status = (code: number) => (phrases[code] ? `${code} ${phrases[code]}` : String(code));

const classes: Record<string, string> = {
  ok: "Success", status: "Unwelcome status", expect: "Unexpected answer", timeout: "Timeout", dns: "Name not resolved",
  connect: "No connection", tls: "TLS not trusted", protocol: "Not valid HTTP", blocked: "Blocked by the guard",
  render: "Could not be built", auth: "No access token", interrupted: "Interrupted by a stop",
};

/** What a class of outcome means. */
export const classText = (name: string) => classes[name] ?? name;
export const classNames = Object.keys(classes);

/** The bytes of a base64 text. */
export function decode(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}
