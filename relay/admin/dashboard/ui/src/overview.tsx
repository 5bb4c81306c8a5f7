import { get, type DestinationState, type Overview as State } from "./api";
import { Latency, noSeries, Throughput } from "./charts";
import { now, number, percent, span } from "./format";
import { health } from "./health";
import { useEvery, useLoad, useTitle } from "./hooks";
import { listen } from "./live";
import { href } from "./router";
import { Badge, Empty, Failure, Skeleton, Time } from "./ui";
import { useEffect } from "preact/hooks";

const every = 30_000; // the minutes of the charts pass even if nothing happens

export function Overview() {
  useTitle("");
  const { data, error, reload } = useLoad("overview", (signal) => get<State>("overview", signal));
  useEvery(every, reload);
  useEffect(() => {
    const stops = [
      listen("reload", reload),
      listen("destination", (changed) => {
        const state = data.value;
        if (!state) return;
        const known = state.destinations.some((d) => d.name === changed.name);
        if (!known) return reload();
        data.value = {
          ...state,
          destinations: state.destinations.map((d) => (d.name === changed.name ? changed : d)),
        };
      }),
    ];
    return () => stops.forEach((stop) => stop());
  }, []);

  const state = data.value;
  return (
    <>
      <header class="page-head">
        <h1 tabIndex={-1}>Overview</h1>
        <span class="grow" />
        <p class="muted about">
          {state ? (
            <>
              Postern {state.version} · up {span((now.value - Date.parse(state.started_at)) / 1000)}
            </>
          ) : (
            " "
          )}
        </p>
      </header>
      {!state && error.value && <Failure error={error.value} retry={reload} />}
      {!state && !error.value && <Skeleton rows={4} tall />}
      {state && <Warnings state={state} stale={error.value} />}
      {state && state.destinations.length > 0 && <Totals state={state} />}
      {state && state.destinations.length === 0 && (
        <div class="card">
          <Empty title="No destinations">
            Add one to the config, such as <code>destinations: {"{alerts: {url: https://hooks.example.com/alerts}}"}</code>
          </Empty>
        </div>
      )}
      <div class="cards">
        {state?.destinations.map((d) => (
          <Card key={d.name} d={d} />
        ))}
      </div>
    </>
  );
}

function Warnings({ state, stale }: { state: State; stale: Error | null }) {
  return (
    <>
      {stale && (
        <p class="callout bad" role="alert">
          <strong>What is shown is old.</strong> {stale.message}
        </p>
      )}
      {state.store?.full && (
        <p class="callout bad" role="alert">
          <strong>New messages are refused.</strong> {state.store.full}
        </p>
      )}
      {state.https?.trouble && (
        <p class="callout bad" role="alert">
          <strong>Apps on other hosts do not get through.</strong> {state.https.trouble}
        </p>
      )}
      {state.reload && !state.reload.ok && (
        <p class="callout warn" role="alert">
          <strong>The changed config is not in force.</strong> {state.reload.error} <Time at={state.reload.at} />
        </p>
      )}
    </>
  );
}

function Totals({ state }: { state: State }) {
  const sum = (of: (d: DestinationState) => number | undefined) => state.destinations.reduce((n, d) => n + (of(d) ?? 0), 0);
  const delivered = sum((d) => d.last_hour?.delivered);
  const failed = sum((d) => d.last_hour?.failed);
  const pending = sum((d) => d.pending);
  return (
    <dl class="totals">
      <div>
        <dt>Delivered, last hour</dt>
        <dd>{number(delivered)}</dd>
      </div>
      <div>
        <dt>Failed, last hour</dt>
        <dd class={failed > 0 ? "bad-text" : ""}>{number(failed)}</dd>
      </div>
      <div>
        <dt>Success rate</dt>
        <dd>{delivered + failed > 0 ? percent(delivered / (delivered + failed)) : "–"}</dd>
      </div>
      <div>
        <dt>Pending</dt>
        <dd>{number(Math.max(pending, state.pending))}</dd>
      </div>
    </dl>
  );
}

/** What happens next to what waits, as one short line. */
export function NextLine({ d }: { d: DestinationState }) {
  if (d.breaker === "open") {
    return (
      <>
        Breaker open{d.breaker_open_since && ` for ${span((now.value - Date.parse(d.breaker_open_since)) / 1000)}`}
        {d.next_probe_at && (Date.parse(d.next_probe_at) > now.value ? <> · probe <Time at={d.next_probe_at} /></> : " · probe due")}
      </>
    );
  }
  if (d.breaker === "probing") return <>Breaker open, probing</>;
  if (d.pause) return (<>Paused <Time at={d.pause.at} /></>);
  if (d.held_until && Date.parse(d.held_until) > now.value) return (<>Goes on <Time at={d.held_until} /></>);
  if (d.next_retry_at && Date.parse(d.next_retry_at) > now.value) return (<>Next retry <Time at={d.next_retry_at} /></>);
  return <>{d.in_flight > 0 ? `${number(d.in_flight)} in flight` : "Nothing to retry"}</>;
}

function Card({ d }: { d: DestinationState }) {
  const h = health(d, now.value);
  const hour = d.last_hour;
  const series = hour?.series?.length ? hour.series : noSeries(now.value);
  return (
    <article class={`card destination ${h.tone}`}>
      <div class="card-head">
        <div class="card-title">
          <h2>
            <a class="stretched" data-row={d.name} href={href(["destinations", d.name])}>
              {d.name}
            </a>
          </h2>
          <p class="muted url">{d.url?.replace(/^https:\/\//, "") || "no longer known"}</p>
        </div>
        <Badge tone={h.tone} title={h.detail}>
          {h.label}
        </Badge>
      </div>
      <dl class="figures">
        <div>
          <dt>Success</dt>
          <dd>{hour?.success_rate == null ? "–" : percent(hour.success_rate)}</dd>
        </div>
        <div>
          <dt>Pending</dt>
          <dd>{number(d.pending)}</dd>
        </div>
        <div>
          <dt>Oldest</dt>
          <dd>{d.oldest_due_at && d.pending > 0 ? span((now.value - Date.parse(d.oldest_due_at)) / 1000) : "–"}</dd>
        </div>
      </dl>
      <div class="charts">
        <Throughput series={series} />
        <Latency series={series} />
      </div>
      <p class="card-foot">
        <NextLine d={d} />
      </p>
    </article>
  );
}
