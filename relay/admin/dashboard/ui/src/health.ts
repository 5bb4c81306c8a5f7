// How a destination does, in one word, by what an operator must know first.
import type { DestinationState } from "./api";
import { number } from "./format";

export type Tone = "good" | "bad" | "warn" | "info" | "quiet";

export interface Health {
  tone: Tone;
  label: string;
  detail: string; // a sentence, or empty
}

// Of the last hour's outcomes: below the first a destination is worth a look, below the second it is in trouble.
const failing = 0.9;
const broken = 0.5;

export function health(d: DestinationState, now: number): Health {
  if (!d.in_config) {
    return { tone: "quiet", label: "Not in config", detail: "It was removed; what waits for it is held." };
  }
  if (!d.enabled) return { tone: "quiet", label: "Disabled", detail: "Disabled in the config; what waits is held." };
  if (d.pause) return { tone: "warn", label: "Paused", detail: d.pause.reason };
  if (d.breaker === "open") {
    return { tone: "bad", label: "Outage", detail: "Attempts are held; a probe tests whether it is over." };
  }
  if (d.breaker === "probing") return { tone: "warn", label: "Probing", detail: "One attempt tests whether the outage is over." };
  if (d.held_until && Date.parse(d.held_until) > now) {
    return { tone: "warn", label: "Slowed", detail: "The receiver asked for a break." };
  }
  if (d.blocked_lines > 0) {
    const lines = d.blocked_lines === 1 ? "One line waits" : `${number(d.blocked_lines)} lines wait`;
    return { tone: "bad", label: "Blocked", detail: `${lines} behind a failed delivery, until it is replayed or let go.` };
  }
  const rate = d.last_hour?.success_rate;
  if (rate != null && rate < failing) return { tone: rate < broken ? "bad" : "warn", label: "Failing", detail: "" };
  if (!d.last_hour?.attempts) return { tone: "quiet", label: "Idle", detail: "" };
  return { tone: "good", label: "Healthy", detail: "" };
}

export const stateTones: Record<string, Tone> = {
  delivered: "good",
  failed: "bad",
  pending: "info",
  canceled: "quiet",
};
