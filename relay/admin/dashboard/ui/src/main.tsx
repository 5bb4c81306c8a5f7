// The dashboard: the frame around the views, and which view the address names.
import "./style.css";
import { useSignal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { hasToken, signedOut, signIn } from "./api";
import { Deliveries } from "./deliveries";
import { DeliveryView } from "./delivery";
import { DestinationView } from "./destination";
import { helping, onKey, replay, replaying, shortcuts } from "./keys";
import { connection, follow } from "./live";
import { Overview } from "./overview";
import { Replay } from "./replay";
import { route } from "./router";
import { nextTheme, theme } from "./theme";
import { Dialog, Empty, Icon, Toasts } from "./ui";

function View() {
  const [first, second, ...others] = route.value.path;
  if (others.length === 0) {
    if (first === undefined) return <Overview />;
    if (first === "deliveries") return second ? <DeliveryView key={second} id={second} /> : <Deliveries />;
    if (first === "destinations") return second ? <DestinationView key={second} name={second} /> : <Overview />;
    if (first === "replay" && !second) return <Replay />;
  }
  return (
    <Empty page title="There is no such page">
      <a href="#/">Go to the overview</a>
    </Empty>
  );
}

const links = [
  ["#/", "Overview", ["", "destinations"]],
  ["#/deliveries", "Deliveries", ["deliveries"]],
  ["#/replay", "Replay", ["replay"]],
] as const;

const connections = {
  live: ["good", "Live: changes appear by themselves"],
  connecting: ["quiet", "Connecting"],
  lost: ["bad", "The relay does not answer; trying again"],
} as const;

const themeNames = { auto: "as the system", light: "light", dark: "dark" } as const;

function Bar() {
  const first = route.value.path[0] ?? "";
  const [tone, text] = connections[connection.value];
  return (
    <header class="bar">
      <div class="bar-inner">
        <a class="brand" href="#/" aria-label="Postern, overview">
          <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
            <rect class="brand-ground" width="32" height="32" rx="8" />
            <path class="brand-gate" d="M9 25V14a7 7 0 0 1 14 0v11" />
            <path class="brand-arrow" d="M13 19h7m-3-3.2 3.2 3.2-3.2 3.2" />
          </svg>
          <span>Postern</span>
        </a>
        <nav aria-label="Main">
          {links.map(([to, label, of]) => (
            <a key={to} href={to} aria-current={(of as readonly string[]).includes(first) ? "page" : undefined}>
              {label}
            </a>
          ))}
        </nav>
        <span class="grow" />
        <span class={`connection ${tone}`} role="status" title={text}>
          <i />
          <span class="hidden">{text}</span>
        </span>
        <button type="button" class="ghost icon-only only-wide" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick={() => (helping.value = true)}>
          <Icon name="keyboard" size={18} />
        </button>
        <button
          type="button"
          class="ghost icon-only"
          aria-label={`Theme: ${themeNames[theme.value]}. Change it`}
          title={`Theme: ${themeNames[theme.value]} (t)`}
          onClick={nextTheme}
        >
          <Icon name={theme.value === "auto" ? "auto" : theme.value === "light" ? "sun" : "moon"} size={18} />
        </button>
      </div>
    </header>
  );
}

function App() {
  const main = useRef<HTMLElement>(null);
  const path = route.value.path.join("/");
  const started = useRef(false);
  useEffect(() => {
    const listener = (e: KeyboardEvent) => onKey(e, nextTheme);
    addEventListener("keydown", listener);
    return () => removeEventListener("keydown", listener);
  }, []);
  useEffect(() => {
    // A new view: a screen reader and the Tab key begin at its heading.
    if (started.current) {
      main.current?.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
      if (route.value.path.length !== 1 || path !== "deliveries") scrollTo(0, 0);
    }
    started.current = true;
  }, [path]);
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(e) => {
          e.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <Bar />
      <main ref={main} tabIndex={-1} id="main">
        <View />
      </main>
      <Toasts />
      {helping.value && <Help />}
      {replaying.value && <AskReplay />}
      {signedOut.value && <SignIn />}
    </>
  );
}

function Help() {
  return (
    <Dialog title="Keyboard shortcuts" onClose={() => (helping.value = false)}>
      <dl class="shortcuts">
        {shortcuts.map(([key, text]) => (
          <div key={key}>
            <dt>{text}</dt>
            <dd>
              <kbd>{key}</kbd>
            </dd>
          </div>
        ))}
      </dl>
      <div class="dialog-actions">
        <button type="button" autofocus onClick={() => (helping.value = false)}>
          Close
        </button>
      </div>
    </Dialog>
  );
}

function AskReplay() {
  const { id, pending } = replaying.value!;
  const close = () => (replaying.value = null);
  return (
    <Dialog title="Replay this delivery?" onClose={close}>
      <p class="id">{id}</p>
      <p class="muted">
        {pending
          ? "It is pending: the replay begins a new round in the place of the next retry."
          : "It begins a new round: the same webhook-id, a fresh timestamp, marked as a replay."}
      </p>
      <div class="dialog-actions">
        <button type="button" onClick={close}>
          Not now
        </button>
        <button
          type="button"
          class="primary"
          autofocus
          onClick={() => {
            close();
            void replay(id);
          }}
        >
          <Icon name="replay" /> Replay
        </button>
      </div>
    </Dialog>
  );
}

function SignIn() {
  const token = useSignal("");
  const refused = hasToken();
  return (
    <Dialog title="This relay wants a token">
      <form
        onSubmit={(e) => {
          e.preventDefault();
          if (token.value.trim()) signIn(token.value.trim());
        }}
      >
        <p class="muted">
          One of <code>listen.admin_tokens</code> in its config. It is kept until this tab is closed, and sent to nobody else.
        </p>
        {refused && (
          <p class="callout bad" role="alert">
            The relay does not know the token that was sent.
          </p>
        )}
        <label class="stacked">
          Token
          <input type="password" autofocus autocomplete="off" value={token.value} onInput={(e) => (token.value = e.currentTarget.value)} />
        </label>
        <div class="dialog-actions">
          <button type="submit" class="primary">
            Go on
          </button>
        </div>
      </form>
    </Dialog>
  );
}

void follow();
render(<App />, document.getElementById("app")!);
