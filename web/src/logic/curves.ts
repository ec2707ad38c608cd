/** Figures of a training and of evaluations, grouped into charts. */

import type { Curve, Evaluation } from "../api/types";

/** What the names of held-out figures begin with. */
const HELD_OUT = "val_";

/** Training and held-out values of one figure. */
export interface Figure {
  name: string;
  lines: { name: string; curve: Curve }[];
}

/** Curves by figure: `loss` and `val_loss` are one. Figures with held-out values come first. */
export function toFigures(curves: Curve[]): Figure[] {
  const figures = new Map<string, Figure>();
  for (const curve of curves) {
    const isHeldOut = curve.name.startsWith(HELD_OUT);
    const name = isHeldOut ? curve.name.slice(HELD_OUT.length) : curve.name;
    const figure = figures.get(name) ?? { name, lines: [] };
    figure.lines.push({ name: isHeldOut ? "held out" : "training", curve });
    figures.set(name, figure);
  }
  const order = ({ name, lines }: Figure) => (name === "loss" ? 0 : lines.some((line) => line.name === "held out") ? 1 : 2);
  return [...figures.values()].sort((a, b) => order(a) - order(b));
}

export const words = (name: string) => name.replaceAll("_", " ");

/** Steps of all lines, and each line's values at them, null where it has none: what uPlot draws. */
export function aligned(lines: { xs: number[]; ys: (number | null)[] }[]): [number[], ...(number | null)[][]] {
  const xs = [...new Set(lines.flatMap((line) => line.xs))].sort((a, b) => a - b);
  const place = new Map(xs.map((x, i) => [x, i]));
  const columns = lines.map((line) => {
    const ys = new Array<number | null>(xs.length).fill(null);
    line.xs.forEach((x, i) => (ys[place.get(x)!] = line.ys[i] ?? null));
    return ys;
  });
  return [xs, ...columns];
}

/** Values that a logarithmic axis can show. */
export const positive = (ys: number[]) => ys.map((y) => (y > 0 ? y : null));

/** Whether low or high values of a metric are good, in words. */
export function goal(metric: string): string {
  if (/distance|loss|error/.test(metric)) return "lower is better";
  return /precision|recall|density|coverage|score|psnr/.test(metric) ? "higher is better" : "";
}

export interface QualityLine {
  name: string;
  xs: number[];
  ys: number[];
}

/** A metric over the steps of sampling: a line for every order, temperature and evaluator that differ. */
export function qualityLines(evaluations: Evaluation[], metric: string, cells: number): QualityLine[] {
  const having = evaluations.filter(({ metrics }) => metric in metrics);
  const parts = (one: Evaluation) => ({
    order: one.token_order ?? "own order",
    temperature: one.temperature === null ? "" : `temperature ${one.temperature}`,
    count: `${one.count} images`,
    reference: one.reference,
  });
  type Part = keyof ReturnType<typeof parts>;
  const varied = (["order", "temperature", "count", "reference"] as Part[]).filter(
    (part) => part === "order" || new Set(having.map((one) => parts(one)[part])).size > 1,
  );
  const lines = new Map<string, [number, number][]>();
  for (const one of having) {
    const name = varied.map((part) => parts(one)[part]).filter(Boolean).join(", ");
    lines.set(name, [...(lines.get(name) ?? []), [one.steps ?? cells, one.metrics[metric]!]]);
  }
  return [...lines].map(([name, points]) => {
    points.sort((a, b) => a[0] - b[0]);
    return { name, xs: points.map(([x]) => x), ys: points.map(([, y]) => y) };
  });
}

/** "from 3.82 at step 20 to 2.41 at step 1,600" */
export function describe(xs: number[], ys: number[]): string {
  if (!xs.length) return "no values";
  const at = (i: number) => `${figure(ys.at(i)!)} at ${xs.at(i)!.toLocaleString("en")}`;
  return xs.length === 1 ? at(0) : `from ${at(0)} to ${at(-1)}`;
}

/** About three digits. */
export function figure(value: number): string {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return value.toLocaleString("en");
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2);
  if (size >= 100) return value.toLocaleString("en", { maximumFractionDigits: 1 });
  return value.toPrecision(3);
}

/** Labels of an axis, all with as many decimals as one of them needs; nothing where a logarithmic axis has no room. */
export function axisLabels(values: (number | null)[]): string[] {
  const decimals = (value: number | null) => (value === null ? 0 : (String(Number(value.toPrecision(6))).split(".")[1]?.length ?? 0));
  const most = Math.min(Math.max(...values.map(decimals)), 6);
  const exact = values.every((value) => value === null || value === 0 || (Math.abs(value) >= 1e-4 && Math.abs(value) < 1e5));
  return values.map((value) => (value === null ? "" : exact ? value.toFixed(most) : figure(value)));
}
