import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { at, get, post, type Delivery, type DestinationState } from "./api";
import { Tokens } from "./body";
import { Latency, noSeries, Throughput } from "./charts";
import { now, number, percent, span } from "./format";
import { health } from "./health";
import { useEvery, useLoad, useTitle } from "./hooks";
import { outline } from "./json";
import { listen } from "./live";
import { NextLine } from "./overview";
import { href, refine, route } from "./router";
import { Rows } from "./rows";
import { TestPanel } from "./test";
import { attempt, Badge, CopyButton, Dialog, Empty, Failure, Icon, Skeleton, Time } from "./ui";

const tabs = [["activity", "Activity"], ["test", "Test"], ["config", "Configuration"]] as const;
const soon = 30 * 86400e3; // milliseconds before its end in which a certificate is worth a warning

export function DestinationView({ name }: { name: string }) {
  useTitle(name);
  const { data, error, reload } = useLoad(name, (signal) => get<DestinationState>(at("destinations", name), signal));
  useEvery(30_000, reload);
  useEffect(
    () =>
      listen("destination", (changed) => {
        if (changed.name === name && data.value) data.value = { ...changed, config: data.value.config };
      }),
    [name],
  );
  const d = data.value;
  if (!d) return error.value ? <Failure page error={error.value} retry={reload} /> : <Skeleton rows={4} tall />;
  const wanted = route.value.query.get("tab");
  const tab = tabs.find(([key]) => key === wanted)?.[0] ?? "activity";
  return (
    <>
      <nav aria-label="Breadcrumb" class="crumbs">
        <a href="#/" data-back>
          <Icon name="back" size={14} /> Overview
        </a>
      </nav>
      <Head d={d} tab={tab} onChange={(changed) => (data.value = { ...changed, config: d.config })} />
      <Callouts d={d} />
      <Figures d={d} />
      <nav class="tabs" aria-label="Sections">
        {tabs.map(([key, label]) => (
          <a key={key} href={href(["destinations", name], { tab: key === "activity" ? "" : key })} aria-current={tab === key ? "page" : undefined}>
            {label}
          </a>
        ))}
      </nav>
      {tab === "activity" && <Activity name={name} />}
      {tab === "test" && <TestPanel key={name} destination={d} />}
      {tab === "config" && <Config d={d} />}
    </>
  );
}

function Head({ d, tab, onChange }: { d: DestinationState; tab: string; onChange: (changed: DestinationState) => void }) {
  const h = health(d, now.value);
  const pausing = useSignal(false);
  const busy = useSignal(false);
  const act = async (action: "pause" | "resume", done: string, body?: unknown) => {
    busy.value = true;
    await attempt(async () => onChange(await post<DestinationState>(at("destinations", d.name, action), body)), done);
    busy.value = false;
  };
  return (
    <header class="page-head">
      <div>
        <div class="title-line">
          <h1 tabIndex={-1}>{d.name}</h1>
          <Badge tone={h.tone}>{h.label}</Badge>
        </div>
        <p class="muted url">{d.url || "Its URL is no longer known."}</p>
      </div>
      <span class="grow" />
      <div class="actions">
        {d.pause ? (
          <button type="button" disabled={busy.value} onClick={() => act("resume", `${d.name} goes on`)}>
            <Icon name="play" /> Resume
          </button>
        ) : (
          <button type="button" disabled={busy.value} onClick={() => (pausing.value = true)}>
            <Icon name="pause" /> Pause
          </button>
        )}
        {d.in_config && tab !== "test" && (
          <button type="button" class="primary" onClick={() => refine({ tab: "test" })}>
            <Icon name="send" /> Send a test
          </button>
        )}
      </div>
      {pausing.value && (
        <PauseDialog
          name={d.name}
          onClose={() => (pausing.value = false)}
          onPause={(reason) => {
            pausing.value = false;
            void act("pause", `${d.name} is paused`, reason ? { reason } : undefined);
          }}
        />
      )}
    </header>
  );
}

function PauseDialog(props: { name: string; onClose: () => void; onPause: (reason: string) => void }) {
  const reason = useSignal("");
  return (
    <Dialog title={`Pause ${props.name}?`} onClose={props.onClose}>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          props.onPause(reason.value.trim());
        }}
      >
        <p class="muted">Messages are still accepted and kept. Nothing is sent until somebody resumes it, also after a restart.</p>
        <label class="stacked">
          Reason, shown to others
          <input autofocus maxLength={500} value={reason.value} onInput={(e) => (reason.value = e.currentTarget.value)} />
        </label>
        <div class="dialog-actions">
          <button type="button" onClick={props.onClose}>
            Not now
          </button>
          <button type="submit" class="primary">
            Pause
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Callouts({ d }: { d: DestinationState }) {
  const h = health(d, now.value);
  const ends = d.certificate_expires_at;
  return (
    <>
      {d.pause && (
        <p class="callout warn">
          <strong>
            Paused <Time at={d.pause.at} />.
          </strong>{" "}
          {d.pause.reason}
        </p>
      )}
      {!d.pause && h.detail && (
        <p class={`callout ${h.tone}`}>
          <strong>{h.label}.</strong> {h.detail}
          {d.blocked_lines > 0 && d.blocking_delivery_id && (
            <>
              {" "}
              <a href={href(["deliveries", d.blocking_delivery_id])}>Open the one that failed</a>
            </>
          )}
        </p>
      )}
      {ends && Date.parse(ends) - now.value < soon && (
        <p class="callout warn">
          <strong>The receiver's certificate ends <Time at={ends} />.</strong> Attempts fail from then on.
        </p>
      )}
    </>
  );
}

function Figures({ d }: { d: DestinationState }) {
  const hour = d.last_hour;
  const series = hour?.series?.length ? hour.series : noSeries(now.value);
  return (
    <section class="card overview-figures" aria-label="The last hour">
      <dl class="figures">
        <div>
          <dt>Success, last hour</dt>
          <dd>{hour?.success_rate == null ? "–" : percent(hour.success_rate)}</dd>
        </div>
        <div>
          <dt>Delivered</dt>
          <dd>{number(hour?.delivered ?? 0)}</dd>
        </div>
        <div>
          <dt>Failed</dt>
          <dd class={hour?.failed ? "bad-text" : ""}>{number(hour?.failed ?? 0)}</dd>
        </div>
        <div>
          <dt>Pending</dt>
          <dd>{number(d.pending)}</dd>
        </div>
        <div>
          <dt>Oldest</dt>
          <dd>{d.oldest_due_at && d.pending > 0 ? span((now.value - Date.parse(d.oldest_due_at)) / 1000) : "–"}</dd>
        </div>
        <div>
          <dt>In flight</dt>
          <dd>
            {number(d.in_flight)} <span class="of">of {number(d.concurrency_limit)}</span>
          </dd>
        </div>
      </dl>
      <div class="charts">
        <Throughput series={series} />
        <Latency series={series} />
      </div>
      <p class="card-foot">
        <NextLine d={d} />
      </p>
    </section>
  );
}

const shown = 12;

function Activity({ name }: { name: string }) {
  const { data, error, reload } = useLoad(`activity ${name}`, (signal) =>
    get<{ deliveries: Delivery[] }>(`deliveries?${new URLSearchParams({ destination: name, limit: String(shown) })}`, signal),
  );
  useEffect(() => {
    let timer = 0;
    const stop = listen("delivery", (changed) => {
      if (changed.destination !== name || timer) return;
      timer = window.setTimeout(() => {
        timer = 0;
        reload();
      }, 1000);
    });
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, [name]);
  const found = data.value?.deliveries;
  return (
    <div class="card list">
      {!found && (error.value ? <Failure error={error.value} retry={reload} /> : <Skeleton rows={6} />)}
      {found?.length === 0 && <Empty title="Nothing was sent here yet">Send a test, or post a message to it.</Empty>}
      {found && found.length > 0 && (
        <>
          <Rows deliveries={found} label={`Latest deliveries to ${name}`} narrow />
          <a class="list-more" href={href(["deliveries"], { destination: name })}>
            All deliveries to {name}
          </a>
        </>
      )}
    </div>
  );
}

function Config({ d }: { d: DestinationState }) {
  if (!d.config || !d.in_config) {
    return (
      <div class="card">
        <Empty title="No configuration">This destination is no longer in the config.</Empty>
      </div>
    );
  }
  const tokens = outline(d.config);
  return (
    <section class="card" aria-labelledby="config-title">
      <div class="section-head">
        <h2 id="config-title">Effective configuration</h2>
        <span class="muted">defaults included, secrets masked</span>
        <span class="grow" />
        <CopyButton text={tokens.map((t) => t.text).join("")} what="Configuration" />
      </div>
      <pre class="code tall" tabIndex={0} role="region" aria-label="Configuration as YAML">
        <code>
          <Tokens tokens={tokens} />
        </code>
      </pre>
    </section>
  );
}
