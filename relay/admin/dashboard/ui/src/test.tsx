// A test request to a destination, sent or only rendered.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { at, post, Problem, type DestinationState, type Exchange, type Rendered } from "./api";
import { Body } from "./body";
import { AttemptView, RequestPane } from "./exchange";
import { route } from "./router";
import { Badge, CopyButton, Icon } from "./ui";
import type { Tone } from "./health";

const sample = `{
  "hello": "world",
  "sent_by": "the Postern dashboard"
}`;

const verdicts: Record<Exchange["would"], { tone: Tone; text: string }> = {
  delivered: { tone: "good", text: "A delivery would be delivered by this." },
  retried: { tone: "warn", text: "A delivery would be retried after this." },
  failed: { tone: "bad", text: "A delivery would fail by this." },
};

type Result = { kind: "sent"; exchange: Exchange } | { kind: "rendered"; rendered: Rendered } | { kind: "refused"; error: Error };

export function TestPanel({ destination: d }: { destination: DestinationState }) {
  const stored = route.value.query.get("delivery");
  const event = useSignal("postern.test");
  const contentType = useSignal("application/json");
  const body = useSignal(sample);
  const busy = useSignal<"" | "test" | "render">("");
  const result = useSignal<Result | null>(null);
  const run = async (action: "test" | "render") => {
    if (busy.value) return;
    busy.value = action;
    const asked =
      action === "render" && stored
        ? { delivery_id: stored }
        : { event: event.value.trim(), content_type: contentType.value.trim(), body: body.value };
    try {
      const path = at("destinations", d.name, action);
      result.value =
        action === "test"
          ? { kind: "sent", exchange: await post<Exchange>(path, asked) }
          : { kind: "rendered", rendered: await post<Rendered>(path, asked) };
    } catch (err) {
      result.value = { kind: "refused", error: err as Error };
    }
    busy.value = "";
  };
  useEffect(() => {
    if (stored) void run("render");
  }, [stored]);
  return (
    <>
      <form
        class="card test-form"
        onSubmit={(e) => {
          e.preventDefault();
          void run("test");
        }}
      >
        <div class="section-head">
          <h2>Send a test</h2>
          <span class="muted">one real request, by the same path as a delivery; nothing is stored</span>
        </div>
        <div class="form-line">
          <label class="stacked">
            Event
            <input value={event.value} spellcheck={false} onInput={(e) => (event.value = e.currentTarget.value)} />
          </label>
          <label class="stacked">
            Content type
            <input value={contentType.value} spellcheck={false} onInput={(e) => (contentType.value = e.currentTarget.value)} />
          </label>
        </div>
        <label class="stacked">
          Body
          <textarea rows={6} spellcheck={false} value={body.value} onInput={(e) => (body.value = e.currentTarget.value)} />
        </label>
        <div class="form-actions">
          <button type="submit" class="primary" disabled={busy.value !== "" || !d.in_config}>
            <Icon name="send" /> {busy.value === "test" ? "Sending…" : "Send test"}
          </button>
          <button type="button" disabled={busy.value !== "" || !d.in_config} onClick={() => run("render")}>
            {stored ? "Render the delivery again" : "Render only"}
          </button>
          {d.pause && <span class="muted">A test is sent although the destination is paused.</span>}
        </div>
      </form>
      <div aria-live="polite">
        {result.value?.kind === "refused" && (
          <p class="callout bad">
            <strong>{result.value.error instanceof Problem ? result.value.error.title : "That did not work"}.</strong> {result.value.error.message}
          </p>
        )}
        {result.value?.kind === "sent" && <Sent exchange={result.value.exchange} />}
        {result.value?.kind === "rendered" && <Shown rendered={result.value.rendered} />}
      </div>
    </>
  );
}

function Sent({ exchange }: { exchange: Exchange }) {
  const verdict = verdicts[exchange.would];
  return (
    <section class="card attempt" aria-labelledby="exchange-title">
      <div class="section-head">
        <h2 id="exchange-title">The exchange</h2>
        <span class="grow" />
        <Badge tone={verdict.tone}>{verdict.text}</Badge>
      </div>
      <AttemptView attempt={{ ...exchange.attempt, request: exchange.request ?? exchange.attempt.request }} />
    </section>
  );
}

function Shown({ rendered }: { rendered: Rendered }) {
  return (
    <section class="card attempt" aria-labelledby="rendered-title">
      <div class="section-head">
        <h2 id="rendered-title">The request as it would be sent</h2>
        <span class="muted">nothing was sent</span>
      </div>
      <RequestPane request={rendered.request} />
      {rendered.signature_bases?.map((s, i) => (
        <Body key={i} of={{ body: s.base, body_base64: s.base_base64 }} label={`What ${s.signer} signs`} raw />
      ))}
      <div class="body">
        <div class="body-head">
          <span class="body-title">With curl, signed</span>
          <span class="grow" />
          <CopyButton text={rendered.curl} what="curl command" />
        </div>
        <pre class="code" tabIndex={0} role="region" aria-label="With curl, signed">
          <code>{rendered.curl}</code>
        </pre>
        {rendered.body_file && (
          <p class="note">
            It looks for the body in the file <code>{rendered.body_file}</code>.
          </p>
        )}
      </div>
    </section>
  );
}
