// The filter bar of the deliveries and of the bulk replay. It shows the query of the address and changes it.
import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { get, type DestinationState } from "./api";
import { filtered, ranges } from "./filter";
import { classNames, classText } from "./format";
import { refine, route } from "./router";
import { Icon, Segmented } from "./ui";

/** The names of the destinations, for the choice among them; kept for all views. */
export const destinationNames = signal<string[]>([]);

async function loadNames() {
  try {
    const answer = await get<{ destinations: DestinationState[] }>("destinations");
    destinationNames.value = answer.destinations.map((d) => d.name);
  } catch {
    // The view says what is wrong; without the names one can still search.
  }
}

function change(name: string, value: string) {
  const query = new URLSearchParams(route.value.query);
  if (value) query.set(name, value);
  else query.delete(name);
  if (name === "range" && value !== "custom") {
    query.delete("since");
    query.delete("until");
  }
  refine(query);
}

/** A text that goes into the address when the typing pauses. */
function Typed({ name, label, placeholder, search }: { name: string; label: string; placeholder: string; search?: boolean }) {
  const value = route.value.query.get(name) ?? "";
  const typed = useSignal(value);
  const timer = useRef(0);
  useEffect(() => {
    if (!timer.current) typed.value = value;
  }, [value]);
  const commit = (text: string) => {
    clearTimeout(timer.current);
    timer.current = 0;
    change(name, text.trim());
  };
  return (
    <label class={search ? "search" : "field"}>
      <span class="hidden">{label}</span>
      {search && <Icon name="search" />}
      <input
        type="search"
        value={typed.value}
        placeholder={placeholder}
        spellcheck={false}
        autocomplete="off"
        data-search={search}
        onInput={(e) => {
          const text = e.currentTarget.value;
          typed.value = text;
          clearTimeout(timer.current);
          timer.current = window.setTimeout(() => commit(text), 250);
        }}
        onKeyDown={(e) => {
          if (e.key === "Enter") commit(e.currentTarget.value);
        }}
      />
      {search && <kbd aria-hidden="true">/</kbd>}
    </label>
  );
}

function Choice({ name, label, options }: { name: string; label: string; options: readonly (readonly [string, string])[] }) {
  const value = route.value.query.get(name) ?? "";
  return (
    <label class="field">
      <span class="hidden">{label}</span>
      <select class={value ? "set" : ""} value={value} onChange={(e) => change(name, e.currentTarget.value)}>
        {options.map(([v, text]) => (
          <option key={v} value={v}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

function When({ name, label }: { name: "since" | "until"; label: string }) {
  return (
    <label class="field when">
      <span>{label}</span>
      <input
        type="datetime-local"
        step={1}
        value={route.value.query.get(name) ?? ""}
        onChange={(e) => change(name, e.currentTarget.value)}
      />
    </label>
  );
}

export function Filters({ states }: { states: readonly (readonly [string, string])[] }) {
  const { query } = route.value;
  useEffect(() => void loadNames(), []);
  const names = new Set(destinationNames.value);
  const chosen = query.get("destination");
  if (chosen) names.add(chosen);
  return (
    <div class="filters" role="search" aria-label="Filter deliveries">
      <Typed name="q" label="Search ids, events, keys and errors" placeholder="Search ids, events, keys, errors" search />
      <Segmented
        label="State"
        value={query.get("state") ?? states[0]![0]}
        options={states}
        onChange={(v) => change("state", v)}
      />
      <div class="filter-fields">
        <Choice name="destination" label="Destination" options={[["", "All destinations"], ...[...names].sort().map((n) => [n, n] as const)]} />
        <Typed name="event" label="Event" placeholder="Any event" />
        <Choice name="class" label="Latest outcome" options={[["", "Any outcome"], ...classNames.map((c) => [c, classText(c)] as const)]} />
        <Choice name="range" label="Time of acceptance" options={ranges} />
        {query.get("range") === "custom" && (
          <>
            <When name="since" label="From" />
            <When name="until" label="to" />
          </>
        )}
        {filtered(query) && (
          <button type="button" class="ghost" onClick={() => refine({})}>
            Clear
          </button>
        )}
      </div>
    </div>
  );
}
