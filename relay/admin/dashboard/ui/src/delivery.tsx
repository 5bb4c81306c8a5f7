import { useSignal } from "@preact/signals";
import { Fragment } from "preact";
import { useEffect } from "preact/hooks";
import { ask, at, get, post, type Attempt, type Delivery, type DeliveryDetail, type Message } from "./api";
import { Body, Headers } from "./body";
import { AttemptView, attemptTone, outcome } from "./exchange";
import { bytes, duration, now, plural, seconds } from "./format";
import { useLoad, useTitle } from "./hooks";
import { listen } from "./live";
import { href, refine, route } from "./router";
import { attempt, CopyButton, Dialog, Failure, Icon, Skeleton, StateBadge, Time, toast } from "./ui";

const settle = 150; // milliseconds: an attempt and the state after it may be told of separately

/** The state that came in takes the place of the old one whole: what it does not name is no longer so. */
const update = (d: DeliveryDetail, changed: Delivery): DeliveryDetail => ({ ...changed, message: d.message, history: d.history });

export function DeliveryView({ id }: { id: string }) {
  const { data, error, reload } = useLoad(id, (signal) => get<DeliveryDetail>(at("deliveries", id), signal));
  useTitle(data.value?.event || id);
  useEffect(() => {
    let timer = 0;
    const stop = listen("delivery", (changed) => {
      if (changed.id !== id) return;
      if (data.value) data.value = update(data.value, changed);
      clearTimeout(timer);
      timer = window.setTimeout(reload, settle);
    });
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, [id]);

  const d = data.value;
  if (!d) {
    return (
      <>
        <Back />
        {error.value ? <Failure page error={error.value} retry={reload} /> : <Skeleton rows={3} tall />}
      </>
    );
  }
  return (
    <>
      <Back />
      <Head d={d} onChange={(changed) => (data.value = update(d, changed))} />
      <Facts d={d} />
      {d.state === "failed" && d.reason && (
        <p class="callout bad">
          <strong>Failed.</strong> {d.reason}
        </p>
      )}
      {d.state === "canceled" && (
        <p class="callout quiet">
          <strong>Canceled.</strong> {d.reason}
        </p>
      )}
      <Attempts d={d} />
      <MessageCard d={d} shown={(d.history ?? []).some((a) => a.request?.body_is_message)} />
      <Siblings d={d} />
    </>
  );
}

function Back() {
  return (
    <nav aria-label="Breadcrumb" class="crumbs">
      <a href={href(["deliveries"])} data-back>
        <Icon name="back" size={14} /> Deliveries
      </a>
    </nav>
  );
}

/** What a person may do with a delivery; the key r asks before it replays. */
function Head({ d, onChange }: { d: DeliveryDetail; onChange: (changed: Delivery) => void }) {
  const busy = useSignal(false);
  const canceling = useSignal(false);
  const act = async (action: "replay" | "retry" | "cancel", done: string, body?: unknown) => {
    busy.value = true;
    await attempt(async () => onChange(await post<Delivery>(at("deliveries", d.id, action), body)), done);
    busy.value = false;
  };
  const ended = d.state !== "pending";
  return (
    <header class="page-head">
      <div>
        <div class="title-line">
          <h1 tabIndex={-1}>{d.event || "Delivery"}</h1>
          <StateBadge state={d.state} />
        </div>
        <p class="id-line">
          <span class="id">{d.id}</span>
          <CopyButton text={d.id} what="Delivery id" />
        </p>
      </div>
      <span class="grow" />
      <div class="actions">
        {!ended && (
          <>
            <button type="button" disabled={busy.value} onClick={() => (canceling.value = true)}>
              <Icon name="stop" /> Cancel
            </button>
            <button type="button" class="primary" disabled={busy.value} onClick={() => act("retry", "Due now")}>
              <Icon name="bolt" /> {d.attempts > 0 ? "Retry now" : "Send now"}
            </button>
          </>
        )}
        {ended && d.blocking && (
          <button type="button" disabled={busy.value} onClick={() => act("cancel", "What waited behind it goes on")}>
            Let the next ones go
          </button>
        )}
        {ended && (
          <button type="button" class="primary" data-replay disabled={busy.value} onClick={() => act("replay", "Replay begun")}>
            <Icon name="replay" /> Replay
          </button>
        )}
      </div>
      {canceling.value && (
        <CancelDialog
          onClose={() => (canceling.value = false)}
          onCancel={(reason) => {
            canceling.value = false;
            void act("cancel", "Delivery canceled", reason ? { reason } : {});
          }}
        />
      )}
    </header>
  );
}

function CancelDialog({ onClose, onCancel }: { onClose: () => void; onCancel: (reason: string) => void }) {
  const reason = useSignal("");
  return (
    <Dialog title="Cancel this delivery?" onClose={onClose}>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          onCancel(reason.value.trim());
        }}
      >
        <p class="muted">No further attempt is made. It stays in the history and can be replayed.</p>
        <label class="stacked">
          Reason, for whoever reads the history
          <input autofocus maxLength={500} value={reason.value} onInput={(e) => (reason.value = e.currentTarget.value)} />
        </label>
        <div class="dialog-actions">
          <button type="button" onClick={onClose}>
            Keep it
          </button>
          <button type="submit" class="primary danger">
            Cancel delivery
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Facts({ d }: { d: DeliveryDetail }) {
  return (
    <dl class="facts">
      <div>
        <dt>Destination</dt>
        <dd>
          <a href={href(["destinations", d.destination])}>{d.destination}</a>
        </dd>
      </div>
      <div>
        <dt>Accepted</dt>
        <dd>
          <Time at={d.accepted_at} />
        </dd>
      </div>
      <div>
        <dt>{d.state === "pending" ? (d.held ? "Held" : d.attempts ? "Next retry" : "Due") : "Ended"}</dt>
        <dd>
          {d.held ? (d.held === "order" ? "waits its turn" : d.held) : d.state === "pending" ? d.due_at && <Time at={d.due_at} /> : d.ended_at && <Time at={d.ended_at} />}
        </dd>
      </div>
      <div>
        <dt>Attempts</dt>
        <dd>
          {d.attempts}
          {d.round > 1 && <span class="muted"> in round {d.round}</span>}
        </dd>
      </div>
      {d.order_key && (
        <div>
          <dt>Ordering key</dt>
          <dd class="mono">{d.order_key}</dd>
        </div>
      )}
      <div>
        <dt>Message</dt>
        <dd class="id-line">
          <span class="id">{d.message_id}</span>
          <CopyButton text={d.message_id} what="Message id" />
        </dd>
      </div>
    </dl>
  );
}

const keyOf = (a: Attempt) => `${a.round}.${a.number}`;

function Attempts({ d }: { d: DeliveryDetail }) {
  const history = d.history ?? [];
  const chosen = route.value.query.get("attempt");
  const shown = history.find((a) => keyOf(a) === chosen) ?? history.at(-1);
  return (
    <div class="card attempts">
      <Timeline d={d} history={history} shown={shown} />
      <div class="attempt">
        {shown ? (
          <>
            <div class="attempt-head">
              <h2>
                Attempt {shown.number}
                {d.round > 1 && <span class="muted"> of round {shown.round}</span>}
              </h2>
              <span class="muted">{shown.probe ? "a probe, uses up no attempt" : ""}</span>
            </div>
            <AttemptView attempt={shown} message={d.message} />
          </>
        ) : (
          <div class="none big">
            <h2>No attempt yet</h2>
            <p>{d.held ? `It is held: ${d.held}.` : d.due_at ? <>The first is due <Time at={d.due_at} />.</> : "None was made."}</p>
          </div>
        )}
      </div>
    </div>
  );
}

function Timeline({ d, history, shown }: { d: DeliveryDetail; history: Attempt[]; shown?: Attempt }) {
  return (
    <ol class="timeline" aria-label="Timeline">
      <li class="event">
        <span class="dot quiet" />
        <span>Accepted</span>
        <span class="when">{seconds(d.accepted_at)}</span>
        <span class="sub">{bytes(d.message.size_bytes)} posted</span>
      </li>
      {history.map((a, i) => (
        <Fragment key={keyOf(a)}>
          {a.round > 1 && a.round !== history[i - 1]?.round && (
            <li class="event">
              <span class="dot info" />
              <span>Replayed</span>
              <span class="sub">round {a.round}</span>
            </li>
          )}
          <li>
            <button
              type="button"
              aria-current={a === shown ? "true" : undefined}
              onClick={() => refine({ attempt: a === history.at(-1) ? undefined : keyOf(a) })}
            >
              <span class={`dot ${attemptTone(a)}`} />
              <span class="strong">{outcome(a)}</span>
              <span class="when">{seconds(a.started_at)}</span>
              <span class="sub">
                {a.probe ? "Probe" : `Attempt ${a.number}`} · {duration(a.took_seconds)}
              </span>
            </button>
          </li>
        </Fragment>
      ))}
      {d.state === "pending" && (
        <li class="event">
          <span class={d.round > 1 && d.made === 0 ? "dot info pulse" : "dot open"} />
          <span>{d.held ? "Held" : d.made > 0 || d.round === 1 ? "Next attempt" : "Replayed"}</span>
          <span class="sub">{d.held ? d.held : d.due_at && Date.parse(d.due_at) > now.value ? <Time at={d.due_at} /> : "due now"}</span>
        </li>
      )}
      {d.state !== "pending" && (
        <li class="event">
          <span class={`dot ${d.state === "delivered" ? "good" : d.state === "failed" ? "bad" : "quiet"} full`} />
          <span>{d.state === "delivered" ? "Delivered" : d.state === "failed" ? "Failed" : "Canceled"}</span>
          {d.ended_at && <span class="when">{seconds(d.ended_at)}</span>}
          <span class="sub">{d.ended_at && `after ${duration(Math.max(0, (Date.parse(d.ended_at) - Date.parse(d.accepted_at)) / 1000))}`}</span>
        </li>
      )}
    </ol>
  );
}

/** Saves the body as the relay serves it, as a file of no type: a browser must never show it as a page. */
async function download(message: Message) {
  try {
    const response = await ask(at("messages", message.id, "body"));
    const url = URL.createObjectURL(new Blob([await response.arrayBuffer()], { type: "application/octet-stream" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `${message.id}.body`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (err) {
    toast(err instanceof Error ? err.message : String(err), "bad");
  }
}

/** The message as posted. Its body is not repeated if it is to be seen above, in a request. */
function MessageCard({ d, shown }: { d: DeliveryDetail; shown: boolean }) {
  const m = d.message;
  const open = useSignal(!shown);
  const onDownload = m.body_removed || m.size_bytes === 0 ? undefined : () => download(m);
  const note = m.body_removed
    ? "The config does not keep bodies of what has ended."
    : m.body_truncated
      ? "Only the beginning is shown; the download has it all."
      : undefined;
  return (
    <section class="card message" aria-labelledby="message-title">
      <div class="section-head">
        <h2 id="message-title">Message</h2>
        <span class="muted">as the app posted it</span>
        <span class="grow" />
        <a href={href(["destinations", d.destination], { tab: "test", delivery: d.id })}>Render by today's config</a>
      </div>
      <dl class="facts inline">
        <div>
          <dt>Content type</dt>
          <dd class="mono">{m.content_type || "none"}</dd>
        </div>
        <div>
          <dt>Size</dt>
          <dd>{bytes(m.size_bytes)}</dd>
        </div>
        {m.path && (
          <div>
            <dt>Path</dt>
            <dd class="mono">{m.path}</dd>
          </div>
        )}
      </dl>
      {m.headers?.length ? <Headers fields={m.headers} open={false} /> : null}
      {open.value ? (
        <Body of={m} label="Body" note={note} onDownload={onDownload} />
      ) : (
        <div class="form-actions">
          <span class="muted">The body was sent as it was posted: it is that of the request above.</span>
          <button type="button" class="ghost small" onClick={() => (open.value = true)}>
            Show it here
          </button>
          {onDownload && (
            <button type="button" class="ghost small" onClick={onDownload}>
              Download
            </button>
          )}
        </div>
      )}
    </section>
  );
}

/** The other deliveries of the same message. */
function Siblings({ d }: { d: DeliveryDetail }) {
  const { data } = useLoad(d.message_id, (signal) => get<Message>(at("messages", d.message_id), signal));
  const others = (data.value?.deliveries ?? []).filter((o) => o.id !== d.id);
  if (others.length === 0) return null;
  return (
    <section class="card siblings" aria-labelledby="siblings-title">
      <div class="section-head">
        <h2 id="siblings-title">Also sent to</h2>
        <span class="muted">{plural(others.length, "destination")}</span>
      </div>
      <ul>
        {others.map((o) => (
          <li key={o.id}>
            <a href={href(["deliveries", o.id])} data-row={o.id}>
              <span class="strong">{o.destination}</span>
              <StateBadge state={o.state} />
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}
