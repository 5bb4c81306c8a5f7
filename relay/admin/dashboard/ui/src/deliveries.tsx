import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Filters } from "./filters";
import { filtered } from "./filter";
import { plural } from "./format";
import { useTitle } from "./hooks";
import * as list from "./list";
import { href, refine, route } from "./router";
import { Rows } from "./rows";
import { Empty, Failure, Icon, Skeleton } from "./ui";

const states = [["", "All"], ["pending", "Pending"], ["delivered", "Delivered"], ["failed", "Failed"], ["canceled", "Canceled"]] as const;

let leftAt = 0; // how far down the list was when the view was left

export function Deliveries() {
  useTitle("Deliveries");
  const { query } = route.value;
  const key = query.toString();
  const end = useRef<HTMLDivElement>(null);

  useLayoutEffect(() => {
    if (list.show(query)) scrollTo(0, leftAt);
  }, [key]);

  useEffect(() => {
    const onScroll = () => {
      leftAt = scrollY;
      list.readFurtherDown(scrollY > 240);
    };
    addEventListener("scroll", onScroll, { passive: true });
    const observer = new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && void list.more(), { rootMargin: "400px" });
    observer.observe(end.current!);
    return () => {
      removeEventListener("scroll", onScroll);
      observer.disconnect();
      list.readFurtherDown(false);
    };
  }, []);

  // After a page has been added the end may still be in sight, and the observer has nothing new to tell.
  const length = list.rows.value.length;
  useEffect(() => {
    if (end.current!.getBoundingClientRect().top < innerHeight + 400) void list.more();
  }, [length, list.next.value]);

  const loading = list.state.value === "loading";
  const replayQuery = new URLSearchParams(query);
  if (!replayQuery.get("state")) replayQuery.set("state", "failed");
  return (
    <>
      <header class="page-head">
        <h1 tabIndex={-1}>Deliveries</h1>
        <span class="grow" />
        <button
          type="button"
          class="switch"
          role="switch"
          aria-checked={list.live.value ? "true" : "false"}
          onClick={() => {
            list.live.value = !list.live.value;
            if (list.live.value) list.take();
          }}
        >
          <i /> Live
        </button>
        <a class="button" href={href(["replay"], replayQuery)}>
          <Icon name="replay" />
          <span>
            Replay<span class="only-wide"> many</span>
          </span>
        </a>
      </header>
      <Filters states={states} />
      <div class="card list">
        {list.waiting.value.length > 0 && (
          <button
            type="button"
            class="news"
            onClick={() => {
              list.take();
              scrollTo({ top: 0 });
            }}
          >
            {plural(list.waiting.value.length, "new delivery", "new deliveries")}
          </button>
        )}
        {loading && <Skeleton rows={10} />}
        {list.failure.value && length === 0 && <Failure error={list.failure.value} retry={list.refresh} />}
        {!loading && !list.failure.value && length === 0 && !list.next.value && <Nothing />}
        <Rows deliveries={list.rows.value} fresh={list.fresh.value} label="Deliveries" />
      </div>
      <div ref={end} class="list-end">
        {list.state.value === "more" && "Loading more…"}
        {list.failure.value && length > 0 && (
          <button type="button" class="ghost" onClick={list.refresh}>
            {list.failure.value.message} Try again
          </button>
        )}
        {!loading && length > 0 && !list.next.value && !list.failure.value && (
          <span>{filtered(query) ? "That is all that matches." : "That is all there is."}</span>
        )}
      </div>
    </>
  );
}

function Nothing() {
  if (filtered(route.value.query)) {
    return (
      <Empty title="No delivery matches">
        Look for less, or{" "}
        <button type="button" class="link" onClick={() => refine({})}>
          clear the filters
        </button>
        .
      </Empty>
    );
  }
  return (
    <Empty title="No deliveries yet">
      Post a message to the relay, for example to <code>/to/{"{destination}"}</code>, and it appears here by itself.
    </Empty>
  );
}
