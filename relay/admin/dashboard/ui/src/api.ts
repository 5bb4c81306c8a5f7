// The admin API as the dashboard uses it: the shapes of its answers, one function that asks, and the token.
import { signal } from "@preact/signals";

export interface Field {
  name: string;
  value: string;
}

/** A body is text, or base64 if it is no valid UTF-8. */
export interface BodyText {
  body?: string;
  body_base64?: string;
}

export interface SeriesPoint {
  at: string;
  delivered: number;
  failed: number;
  attempts: number;
  p50_seconds?: number | null;
  p99_seconds?: number | null;
}

export interface DestinationState {
  name: string;
  url?: string; // unknown for one that is no longer in the config
  enabled: boolean;
  in_config: boolean;
  pause?: { at: string; reason: string } | null;
  breaker?: "" | "closed" | "open" | "probing";
  breaker_open_since?: string;
  next_probe_at?: string;
  held_until?: string;
  in_flight: number;
  concurrency_limit: number;
  pending: number;
  blocked_lines: number;
  blocking_delivery_id?: string; // one of those that block
  oldest_due_at?: string;
  next_retry_at?: string;
  last_hour?: {
    delivered: number;
    failed: number;
    attempts: number;
    success_rate: number | null;
    series: SeriesPoint[];
  };
  certificate_expires_at?: string;
  config?: Record<string, unknown>;
}

export interface Reload {
  at: string;
  ok: boolean;
  error?: string;
}

export interface Overview {
  now: string;
  version: string;
  started_at: string;
  pending: number;
  reload?: Reload | null;
  store?: { full: string };
  https?: { trouble: string };
  destinations: DestinationState[];
}

export type State = "pending" | "delivered" | "failed" | "canceled";

export interface Delivery {
  id: string;
  message_id: string;
  destination: string;
  event: string;
  state: State;
  round: number;
  attempts: number;
  made: number;
  accepted_at: string;
  due_at?: string;
  ended_at?: string;
  reason?: string;
  held?: string;
  blocking?: boolean;
  order_key?: string;
  last?: { at: string; class: string; status?: number; error?: string } | null;
}

export interface Message extends BodyText {
  id: string;
  event: string;
  content_type: string;
  accepted_at: string;
  size_bytes: number;
  key?: string;
  path?: string;
  headers?: Field[] | null;
  body_truncated?: boolean;
  body_removed?: boolean;
  deliveries?: Delivery[] | null;
}

export interface SentRequest extends BodyText {
  method: string;
  url: string;
  headers?: Field[] | null;
  truncated?: boolean;
  body_is_message?: boolean;
}

export interface Answer extends BodyText {
  status: number;
  headers?: Field[] | null;
  truncated?: boolean;
}

export interface Timing {
  dns_seconds: number;
  connect_seconds: number;
  tls_seconds: number;
  first_byte_seconds: number;
  total_seconds: number;
}

export interface Attempt {
  round: number;
  number: number;
  started_at: string;
  took_seconds: number;
  class: string;
  status?: number;
  error?: string;
  probe?: boolean;
  request?: SentRequest | null;
  response?: Answer | null;
  retry_hint_seconds?: number;
  timing?: Timing | null;
  peer?: string;
  reused?: boolean;
  certificate_expires_at?: string;
}

export interface DeliveryDetail extends Delivery {
  message: Message;
  history?: Attempt[] | null;
}

export interface Exchange {
  request: SentRequest;
  attempt: Attempt;
  would: "delivered" | "retried" | "failed";
}

export interface Rendered {
  request: SentRequest;
  signature_bases?: { signer: string; base?: string; base_base64?: string }[] | null;
  curl: string;
  body_file?: string; // where the command looks for the body, if it does not hold it
}

export interface ReplayResult {
  matched: number;
  replayed: number;
  capped: boolean;
}

/** An answer that is no success: what its problem details say (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    detail: string,
  ) {
    super(detail);
  }
}

const tokenKey = "postern.token";

/** Whether the API wants a token that we do not have, or refused the one we sent. */
export const signedOut = signal(false);

/** Keeps the token for this tab only: sessionStorage ends with it. */
export function signIn(token: string) {
  sessionStorage.setItem(tokenKey, token);
  signedOut.value = false;
}

export const hasToken = () => sessionStorage.getItem(tokenKey) !== null;

export function authorization(): Record<string, string> {
  const token = sessionStorage.getItem(tokenKey);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** A challenge comes with a 401, and with the 429 after too many wrong tokens (RFC 9110, section 11.6.1). */
const challenged = (response: Response) => response.status === 401 || response.headers.has("WWW-Authenticate");

/** Asks, and returns the response if it is a success. Throws a Problem, or an Error if there was no answer. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  // A view that goes on asking with a token that is refused would count as somebody who tries one after the other.
  if (signedOut.value) throw new Problem(401, "Unauthorized", "The relay wants a token.");
  const sent = authorization();
  let response: Response;
  try {
    response = await fetch(`api/v1/${path}`, {
      ...init,
      credentials: "omit",
      redirect: "error",
      headers: { ...init.headers, ...sent },
    });
  } catch (err) {
    if (init.signal?.aborted) throw err;
    throw new Problem(0, "No answer", "The relay does not answer. Is it running?");
  }
  if (response.ok) return response;
  // Not if the answer is to a token that has been replaced since.
  if (challenged(response) && sent.Authorization === authorization().Authorization) signedOut.value = true;
  const details = await response.json().catch(() => null);
  throw new Problem(
    response.status,
    String(details?.title ?? response.statusText),
    String(details?.detail ?? `The relay answered with the status ${response.status}.`),
  );
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await ask(path, { signal });
  return (await response.json()) as T;
}

export async function post<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const response = await ask(path, {
    method: "POST",
    signal,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
  });
  return (await response.json()) as T;
}

/** The path of a destination or delivery below the API, its name escaped. */
export function at(kind: "destinations" | "deliveries" | "messages", name: string, action = ""): string {
  return `${kind}/${encodeURIComponent(name)}${action && `/${action}`}`;
}
