/** Lines over steps, drawn by uPlot in the page's colors. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { aligned, axisLabels, describe, figure, positive } from "../logic/curves";

export interface Line {
  name: string;
  xs: number[];
  ys: number[];
}

interface Props {
  title: string;
  lines: Line[];
  xName: string;
  log?: boolean;
  logX?: boolean;
  /** Marks every value, where there are few. */
  points?: boolean;
  height?: number;
}

const DARK = matchMedia("(prefers-color-scheme: dark)");
const scheme = signal(DARK.matches);
DARK.addEventListener("change", ({ matches }) => (scheme.value = matches));

/** Held-out values have the same color in every chart. */
const PLACES: Record<string, number> = { training: 0, "held out": 1 };

const LIGHT_COLORS = ["#6a1b9a", "#c2410c", "#0f766e", "#a21caf", "#1d4ed8", "#4d7c0f"];
const DARK_COLORS = ["#c79bf0", "#ff9447", "#4fd1c0", "#f58bd0", "#8ab4ff", "#b6d957"];

export function Chart({ title, lines, xName, log = false, logX = false, points = false, height = 220 }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const isDark = scheme.value;

  useEffect(() => {
    const element = frame.current!;
    const style = getComputedStyle(element);
    const ink = style.getPropertyValue("--ink-soft");
    const grid = { stroke: style.getPropertyValue("--line"), width: 1 };
    const font = '12px ui-sans-serif, system-ui, "Segoe UI", sans-serif';
    const colors = isDark ? DARK_COLORS : LIGHT_COLORS;
    const axis: uPlot.Axis = { stroke: ink, grid, ticks: grid, font, labelFont: font };
    const data = aligned(lines.map(({ xs, ys }) => ({ xs, ys: log ? positive(ys) : ys })));
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height,
        scales: { x: { time: false, distr: logX ? 3 : 1, ...(logX ? { log: 2 as const } : {}) }, y: { distr: log ? 3 : 1 } },
        axes: [
          { ...axis, label: xName, labelSize: 18, size: 34 },
          { ...axis, size: 64, values: (_, values) => axisLabels(values) },
        ],
        series: [
          { label: xName },
          ...lines.map(({ name }, i): uPlot.Series => {
            const stroke = colors[(PLACES[name] ?? i) % colors.length]!;
            const few = points || lines[i]!.xs.length < 30;
            return {
              label: name,
              stroke,
              width: 1.75,
              spanGaps: true,
              points: { show: few, size: 7, fill: stroke },
              value: (_, value) => (value === null ? "–" : figure(value)),
            };
          }),
        ],
        cursor: { y: false },
        legend: { live: true },
      },
      data as uPlot.AlignedData,
      element,
    );
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [lines, log, logX, points, height, isDark, xName]);

  const summary = lines.map(({ name, xs, ys }) => `${name}: ${describe(xs, ys)}`).join("; ");
  return (
    <figure class="chart">
      <figcaption>
        <strong>{title}</strong>
        <span title={summary}>{summary}</span>
      </figcaption>
      <div ref={frame} style={{ minHeight: `${height + 28}px` }} aria-hidden="true" />
    </figure>
  );
}
