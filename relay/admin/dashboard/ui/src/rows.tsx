// Deliveries as lines of a list; each is one link.
import type { Delivery } from "./api";
import { relative, now } from "./format";
import { attemptTone, outcome } from "./exchange";
import { href } from "./router";
import { StateBadge, Time } from "./ui";

/** What is to be known of a delivery beyond its state, in a few words. */
function next(d: Delivery, at: number): string {
  if (d.state !== "pending") return d.attempts === 0 ? "no attempt" : d.attempts === 1 ? "1 attempt" : `${d.attempts} attempts`;
  if (d.held) return d.held === "order" ? "waits its turn" : `held: ${d.held}`;
  if (!d.due_at) return "pending";
  const soon = Date.parse(d.due_at) <= at + 1000;
  return soon ? (d.attempts ? "retry due now" : "due now") : `${d.attempts ? "retry" : "due"} ${relative(d.due_at, at)}`;
}

interface RowsProps {
  deliveries: Delivery[];
  fresh?: ReadonlySet<string>;
  label: string; // for a screen reader
  narrow?: boolean; // all go to the same destination, which is named elsewhere
}

export function Rows({ deliveries, fresh, label, narrow }: RowsProps) {
  return (
    <ul class={narrow ? "rows narrow" : "rows"} aria-label={label}>
      {deliveries.map((d) => (
        <Row key={d.id} d={d} fresh={fresh?.has(d.id) ?? false} />
      ))}
    </ul>
  );
}

function Row({ d, fresh }: { d: Delivery; fresh: boolean }) {
  return (
    <li class={fresh ? "row fresh" : "row"}>
      <a href={href(["deliveries", d.id])} data-row={d.id} data-state={d.state}>
        <span class="cell-state">
          <StateBadge state={d.state} />
        </span>
        <span class="cell-event">
          <span class="strong">{d.event || "no event"}</span>
          <span class="id">{d.id}</span>
        </span>
        <span class="cell-destination">{d.destination}</span>
        <span class="cell-outcome">
          {d.last ? (
            <span class={`${attemptTone(d.last)}-text`} title={d.last.error}>
              {outcome(d.last)}
            </span>
          ) : (
            <span class="muted">not tried yet</span>
          )}
          <span class="sub">
            {next(d, now.value)}
            {d.round > 1 && ` · round ${d.round}`}
          </span>
        </span>
        <span class="cell-time">
          <Time at={d.accepted_at} />
        </span>
      </a>
    </li>
  );
}
