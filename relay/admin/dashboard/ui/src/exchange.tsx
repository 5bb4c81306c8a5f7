// One request and what came back, side by side, with where the time went.
import type { Attempt, Message, SentRequest } from "./api";
import { Body, Headers } from "./body";
import { curl } from "./curl";
import { absolute, bytes, classText, duration, status } from "./format";
import type { Tone } from "./health";
import { Badge, copy, Icon, Time } from "./ui";

export function attemptTone(a: { class: string }): Tone {
  return a.class === "ok" ? "good" : a.class === "interrupted" ? "quiet" : "bad";
}

/** What came of an attempt, in a few words: "200 OK", "Timeout". */
export function outcome(a: { class: string; status?: number }): string {
  if (a.status && (a.class === "ok" || a.class === "status")) return status(a.status);
  return a.status ? `${classText(a.class)} (${a.status})` : classText(a.class);
}

/** The request with its body: that of the message, if it was sent as posted. */
function withBody(request: SentRequest, message?: Message): SentRequest {
  if (!request.body_is_message || !message) return request;
  return { ...request, body: message.body, body_base64: message.body_base64, truncated: message.body_truncated };
}

function bodyNote(request: SentRequest, message?: Message): string | undefined {
  if (request.body_is_message && message?.body_removed) return "The config does not keep bodies of what has ended.";
  if (request.truncated) return "Only the beginning is kept.";
  return undefined;
}

export function RequestPane({ request: sent, message }: { request: SentRequest; message?: Message }) {
  const request = withBody(sent, message);
  return (
    <section class="pane" aria-label="Request">
      <div class="pane-head">
        <h3>Request</h3>
        <span class="grow" />
        <button type="button" class="ghost small" onClick={() => copy(curl(request), "curl command")}>
          <Icon name="copy" size={14} /> Copy as curl
        </button>
      </div>
      <p class="target">
        <strong>{request.method}</strong> <span>{request.url}</span>
      </p>
      <Headers fields={request.headers} />
      <Body of={request} label="Request body" note={bodyNote(request, message)} />
    </section>
  );
}

export function ResponsePane({ attempt }: { attempt: Attempt }) {
  const answer = attempt.response;
  return (
    <section class="pane" aria-label="Response">
      <div class="pane-head">
        <h3>Response</h3>
        <span class="grow" />
        <Badge tone={attemptTone(attempt)}>{outcome(attempt)}</Badge>
      </div>
      {attempt.error && !(answer && attempt.class === "status") && (
        <p class="callout bad" role="note">
          {attempt.error}
        </p>
      )}
      {answer ? (
        <>
          <Headers fields={answer.headers} />
          <Body of={answer} label="Response body" note={answer.truncated ? "Only the beginning is kept." : undefined} />
        </>
      ) : (
        <p class="none">No answer came back.</p>
      )}
    </section>
  );
}

export function TimingBar({ attempt }: { attempt: Attempt }) {
  const t = attempt.timing;
  const total = t?.total_seconds || attempt.took_seconds;
  if (!t || total <= 0) return null;
  const before = t.dns_seconds + t.connect_seconds + t.tls_seconds;
  const answered = t.first_byte_seconds > 0;
  const phases = [
    { name: "DNS", key: "dns", s: t.dns_seconds },
    { name: "Connect", key: "connect", s: t.connect_seconds },
    { name: "TLS", key: "tls", s: t.tls_seconds },
    { name: answered ? "First byte" : "Waited", key: "wait", s: Math.max(0, (answered ? t.first_byte_seconds : total) - before) },
    { name: "Rest", key: "rest", s: answered ? Math.max(0, total - t.first_byte_seconds) : 0 },
  ];
  const sentence = phases.filter((p) => p.s > 0).map((p) => `${p.name} ${duration(p.s)}`).join(", ");
  return (
    <div class="timing">
      <div class="timing-bar" role="img" aria-label={`Timing: ${sentence}, ${duration(total)} in all`}>
        {phases.map((p) => p.s > 0 && <span key={p.key} class={p.key} style={{ flexGrow: p.s / total }} />)}
      </div>
      <ul class="timing-legend">
        {phases.map((p) => (
          <li key={p.key} class={p.s > 0 ? "" : "off"}>
            <i class={p.key} />
            {p.name} <b>{p.s > 0 ? duration(p.s) : "–"}</b>
          </li>
        ))}
        <li>
          Total <b>{duration(total)}</b>
        </li>
      </ul>
    </div>
  );
}

/** The facts of an attempt that are neither request nor response. */
export function AttemptFacts({ attempt: a }: { attempt: Attempt }) {
  return (
    <dl class="facts inline">
      <div>
        <dt>Began</dt>
        <dd title={absolute(a.started_at)}>{absolute(a.started_at)}</dd>
      </div>
      {a.peer && (
        <div>
          <dt>Peer</dt>
          <dd class="mono">{a.peer}</dd>
        </div>
      )}
      <div>
        <dt>Connection</dt>
        <dd>{a.peer ? (a.reused ? "reused" : "new") : "none"}</dd>
      </div>
      {a.retry_hint_seconds ? (
        <div>
          <dt>Retry-After</dt>
          <dd>{duration(a.retry_hint_seconds)}</dd>
        </div>
      ) : null}
      {a.certificate_expires_at && (
        <div>
          <dt>Certificate ends</dt>
          <dd>
            <Time at={a.certificate_expires_at} />
          </dd>
        </div>
      )}
    </dl>
  );
}

export function AttemptView({ attempt, message }: { attempt: Attempt; message?: Message }) {
  return (
    <>
      <AttemptFacts attempt={attempt} />
      <TimingBar attempt={attempt} />
      <div class="sides">
        {attempt.request ? (
          <RequestPane request={attempt.request} message={message} />
        ) : (
          <section class="pane" aria-label="Request">
            <div class="pane-head">
              <h3>Request</h3>
            </div>
            <p class="none">Nothing was sent{message?.body ? ` of the ${bytes(message.size_bytes)}` : ""}.</p>
          </section>
        )}
        <ResponsePane attempt={attempt} />
      </div>
    </>
  );
}
