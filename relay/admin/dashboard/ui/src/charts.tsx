// The charts of a destination's last hour, as SVG: a point a minute, sixty of them, coloured by the style sheet so that
// they follow the theme. For a screen reader each is one picture with a sentence.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import type { SeriesPoint } from "./api";
import { clock, duration, number } from "./format";

const height = 40;

interface FrameProps {
  series: SeriesPoint[];
  title: string;
  label: string;
  resting: ComponentChildren;
  at: (point: SeriesPoint) => ComponentChildren;
  children: ComponentChildren;
}

/** The title, a reading that follows the pointer, and the drawing. */
function Frame({ series, title, label, resting, at, children }: FrameProps) {
  const over = useSignal<number | null>(null);
  const point = over.value === null ? undefined : series[over.value];
  return (
    <figure class="chart">
      <figcaption>
        <span>{point ? clock(point.at) : title}</span>
        <span class="reading">{point ? at(point) : resting}</span>
      </figcaption>
      <svg
        viewBox={`0 0 ${series.length} ${height}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={label}
        onPointerMove={(e) => {
          const box = e.currentTarget.getBoundingClientRect();
          const i = Math.floor(((e.clientX - box.left) / box.width) * series.length);
          over.value = Math.min(Math.max(i, 0), series.length - 1);
        }}
        onPointerLeave={() => (over.value = null)}
      >
        {over.value !== null && <rect class="cursor" x={over.value} y={0} width={1} height={height} />}
        {children}
      </svg>
    </figure>
  );
}

const perMinute = (n: number) => `${n < 10 ? n.toFixed(1) : number(n)}/min`;

/** Delivered and failed a minute, stacked. */
export function Throughput({ series }: { series: SeriesPoint[] }) {
  const top = Math.max(1, ...series.map((p) => p.delivered + p.failed));
  const delivered = series.reduce((sum, p) => sum + p.delivered, 0);
  const failed = series.reduce((sum, p) => sum + p.failed, 0);
  const y = (n: number) => (n / top) * (height - 2);
  return (
    <Frame
      series={series}
      title="Throughput"
      label={`Throughput of the last hour: ${number(delivered)} delivered, ${number(failed)} failed, at most ${number(top)} a minute`}
      resting={delivered + failed === 0 ? "none" : perMinute((delivered + failed) / series.length)}
      at={(p) => (
        <>
          {number(p.delivered)}
          {p.failed > 0 ? <span class="bad-text">, {number(p.failed)} failed</span> : " delivered"}
        </>
      )}
    >
      <rect class="base" x={0} y={height - 0.5} width={series.length} height={0.5} />
      {series.map((p, i) => {
        const good = y(p.delivered);
        const bad = y(p.failed);
        return (
          <g key={i}>
            {good > 0 && <rect class="good" x={i + 0.15} y={height - good} width={0.7} height={good} />}
            {bad > 0 && <rect class="bad" x={i + 0.15} y={height - good - Math.max(bad, 2)} width={0.7} height={Math.max(bad, 2)} />}
          </g>
        );
      })}
    </Frame>
  );
}

/** The median of the attempts' times as an area, the slowest hundredth as a line. */
export function Latency({ series }: { series: SeriesPoint[] }) {
  const slow = series.flatMap((p) => (p.p99_seconds != null ? [p.p99_seconds] : []));
  const median = series.flatMap((p) => (p.p50_seconds != null ? [p.p50_seconds] : []));
  const top = Math.max(0.001, ...slow, ...median);
  const y = (s: number) => height - 1 - (s / top) * (height - 3);
  const typical = [...median].sort((a, b) => a - b)[Math.floor(median.length / 2)];
  const lines = (value: (p: SeriesPoint) => number | null | undefined) => runs(series, value);
  return (
    <Frame
      series={series}
      title="Latency"
      label={
        typical === undefined
          ? "Latency of the last hour: no attempts"
          : `Latency of the last hour: typically ${duration(typical)}, at most ${duration(top)}`
      }
      resting={typical === undefined ? "none" : duration(typical)}
      at={(p) => (p.p50_seconds == null ? "no attempts" : `${duration(p.p50_seconds)}${p.p99_seconds == null ? "" : `, p99 ${duration(p.p99_seconds)}`}`)}
    >
      <rect class="base" x={0} y={height - 0.5} width={series.length} height={0.5} />
      {lines((p) => p.p50_seconds).map((run, i) => (
        <path
          key={i}
          class="area"
          d={`M${run[0]![0]} ${height}${run.map(([x, s]) => `L${x} ${y(s).toFixed(2)}`).join("")}L${run.at(-1)![0]} ${height}Z`}
        />
      ))}
      {lines((p) => p.p99_seconds).map((run, i) => (
        <path key={i} class="line slow" d={run.map(([x, s], j) => `${j ? "L" : "M"}${x} ${y(s).toFixed(2)}`).join("")} />
      ))}
      {lines((p) => p.p50_seconds).map((run, i) => (
        <path key={i} class="line" d={run.map(([x, s], j) => `${j ? "L" : "M"}${x} ${y(s).toFixed(2)}`).join("")} />
      ))}
    </Frame>
  );
}

/** The stretches of minutes that have a value, as points; one alone is drawn half a minute wide to either side. */
function runs(series: SeriesPoint[], value: (p: SeriesPoint) => number | null | undefined): [number, number][][] {
  const all: [number, number][][] = [];
  let run: [number, number][] = [];
  series.forEach((p, i) => {
    const v = value(p);
    if (v != null) {
      run.push([i + 0.5, v]);
      return;
    }
    if (run.length) all.push(run);
    run = [];
  });
  if (run.length) all.push(run);
  return all.map((r) => (r.length > 1 ? r : [[r[0]![0] - 0.5, r[0]![1]], [r[0]![0] + 0.5, r[0]![1]]]));
}

/** What sixty minutes without any record look like. */
export function noSeries(now: number): SeriesPoint[] {
  const minute = Math.floor(now / 60_000) * 60_000;
  return Array.from({ length: 60 }, (_, i) => ({
    at: new Date(minute - (59 - i) * 60_000).toISOString(),
    delivered: 0,
    failed: 0,
    attempts: 0,
  }));
}

