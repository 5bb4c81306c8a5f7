import { useSignal } from "@preact/signals";
import { get, post, Problem, type Delivery, type ReplayResult } from "./api";
import { apiFilter, type ApiFilter } from "./filter";
import { Filters } from "./filters";
import { number, plural } from "./format";
import { useLoad, useTitle } from "./hooks";
import { href, refine, route } from "./router";
import { Rows } from "./rows";
import { Empty, Failure, Icon, Skeleton, toast } from "./ui";

const states = [["failed", "Failed"], ["canceled", "Canceled"], ["delivered", "Delivered"], ["ended", "All ended"]] as const;
const sampled = 8;
const typed = 100; // more than so many are confirmed by typing how many

interface Preview {
  filter: ApiFilter; // with fixed times: what is replayed is what was counted
  result: ReplayResult;
  sample: Delivery[];
}

async function preview(query: URLSearchParams, signal: AbortSignal): Promise<Preview> {
  const filter = apiFilter(query, Date.now());
  filter.until ??= new Date().toISOString();
  if (filter.state === "ended") delete filter.state;
  else filter.state ??= "failed";
  const [result, found] = await Promise.all([
    post<ReplayResult>("replay", { filter, dry_run: true }, signal),
    get<{ deliveries: Delivery[] }>(`deliveries?${new URLSearchParams({ ...filter, limit: String(sampled * 4) })}`, signal),
  ]);
  return { filter, result, sample: found.deliveries.filter((d) => d.state !== "pending").slice(0, sampled) };
}

export function Replay() {
  useTitle("Replay many");
  const { query } = route.value;
  const key = query.toString();
  const { data, error, reload } = useLoad(key, (signal) => preview(query, signal));
  return (
    <>
      <header class="page-head">
        <div>
          <h1 tabIndex={-1}>Replay many</h1>
          <p class="muted">Choose what to send again. Nothing is sent before you have seen how many there are.</p>
        </div>
      </header>
      <Filters states={states} />
      {!data.value && (error.value ? <Failure error={error.value} retry={reload} /> : <Skeleton rows={6} />)}
      {data.value && <Confirm key={key} preview={data.value} onDone={reload} />}
    </>
  );
}

function Confirm({ preview: p, onDone }: { preview: Preview; onDone: () => void }) {
  const confirmed = useSignal("");
  const busy = useSignal(false);
  const n = p.result.matched;
  const ready = n > 0 && (n <= typed || confirmed.value.replace(/\D/g, "") === String(n));
  const replay = async () => {
    busy.value = true;
    try {
      const done = await post<ReplayResult>("replay", { filter: p.filter, dry_run: false, expect_count: n });
      toast(`${plural(done.replayed, "delivery", "deliveries")} replayed`);
    } catch (err) {
      const changed = err instanceof Problem && err.status === 409;
      toast(changed ? `${err.message} Look at the new count.` : (err as Error).message, "bad");
    }
    busy.value = false;
    confirmed.value = "";
    onDone();
  };
  if (n === 0) {
    return (
      <div class="card">
        <Empty title="Nothing to replay">
          No ended delivery matches.{" "}
          <button type="button" class="link" onClick={() => refine({ state: "ended" })}>
            Look at all that have ended
          </button>
        </Empty>
      </div>
    );
  }
  return (
    <>
      <section class="card confirm" aria-labelledby="confirm-title">
        <div>
          <h2 id="confirm-title">
            <b class="count">{number(n)}</b> {n === 1 ? "delivery matches" : "deliveries match"}
          </h2>
          <p class="muted">
            Each begins a new round: the same <code>webhook-id</code>, a fresh timestamp, marked as a replay. Receivers that
            drop repeated ids will do so.
          </p>
          {p.result.capped && (
            <p class="callout warn">
              {p.filter.state === "failed" || p.filter.state === "canceled"
                ? "There are more. This many are replayed at a time; replay again after it."
                : "There are more, older ones. Choose them by their time after this; the same again would begin with these."}
            </p>
          )}
        </div>
        <form
          onSubmit={(e) => {
            e.preventDefault();
            if (ready && !busy.value) void replay();
          }}
        >
          {n > typed && (
            <label class="stacked">
              Type {n} to confirm
              <input inputMode="numeric" autocomplete="off" value={confirmed.value} onInput={(e) => (confirmed.value = e.currentTarget.value)} />
            </label>
          )}
          <button type="submit" class="primary" disabled={!ready || busy.value}>
            <Icon name="replay" /> {busy.value ? "Replaying…" : `Replay ${plural(n, "delivery", "deliveries")}`}
          </button>
        </form>
      </section>
      {p.sample.length > 0 && (
        <>
          <h2 class="list-title">
            {n > p.sample.length ? `The latest ${p.sample.length} of them` : "These"}
          </h2>
          <div class="card list">
            <Rows deliveries={p.sample} label="Deliveries that would be replayed" />
            {n > p.sample.length && (
              <a class="list-more" href={href(["deliveries"], { ...p.filter, since: undefined, until: undefined })}>
                See them among the deliveries
              </a>
            )}
          </div>
        </>
      )}
    </>
  );
}
