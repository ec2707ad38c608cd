/** Requests that continue from a state of a trace: with another seed or class, or with a chosen token in a cell. */

import type { ImageRequest } from "../api/client";
import type { CellRequest, Tokens, Values } from "../api/types";
import { toTokens, toValues } from "./tokens";
import { readAt, type Trace } from "./trace";

/** Cells per step that are left at a state. */
export const stepsLeft = (trace: Trace, step: number): number[] => trace.started?.steps.slice(step) ?? [];

/** "step 8", and of which image where there are several. */
export const placeOf = ({ request, started }: Trace, image: number, step: number) =>
  request.count > 1 ? `step ${step} of seed ${started?.seeds[image] ?? request.seed + image}` : `step ${step}`;

/** The same steps when one cell fewer is left to fill: the last one loses it. */
export function withoutOne(steps: number[]): number[] {
  const last = steps.at(-1);
  if (last === undefined) return [];
  return last > 1 ? [...steps.slice(0, -1), last - 1] : steps.slice(0, -1);
}

/** Continues from a state with another seed, and perhaps another class. */
export function forkRequest(
  trace: Trace,
  image: number,
  step: number,
  seed: number,
  label: number | null = trace.request.label ?? null,
): ImageRequest {
  const { cells, tokens } = readAt(trace, image, step);
  return continued(trace, { cells, values: toValues(tokens, trace.model.channels) }, stepsLeft(trace, step), seed, label);
}

/** Continues from a state with a given token in a cell, and the seed of the image. */
export function pinRequest(trace: Trace, image: number, step: number, cell: number, value: Values): ImageRequest {
  const { channels } = trace.model;
  const { cells, tokens } = readAt(trace, image, step);
  const known = { cells: [...cells, cell], values: toValues([...tokens, ...toTokens(value, channels)], channels) };
  const seed = trace.started?.seeds[image] ?? trace.request.seed + image;
  return continued(trace, known, withoutOne(stepsLeft(trace, step)), seed, trace.request.label ?? null);
}

function continued(
  { request }: Trace,
  known: Tokens,
  schedule: number[],
  seed: number,
  label: number | null,
): ImageRequest {
  const { steps: _, schedule: __, ...sampling } = request.sampling;
  const { composite: ___, ...modelRequest } = request;
  return {
    ...modelRequest,
    label,
    count: 1,
    seed,
    known: { ...known, in_order: true },
    sampling: schedule.length ? { ...sampling, schedule } : sampling,
  };
}

/** A request for the prediction of an unread cell. */
export function cellRequest(trace: Trace, image: number, step: number, cell: number, top: number): CellRequest {
  const { model, request } = trace;
  const { cells, tokens } = readAt(trace, image, step);
  const { steps: _, schedule: __, token_order: ___, approximate_head: ____, ...sampling } = request.sampling;
  return {
    model: model.name,
    label: request.label ?? null,
    ...(request.size ? { size: request.size } : {}),
    sampling,
    known: { cells, values: toValues(tokens, model.channels) },
    cell,
    top,
    seed: trace.started?.seeds[image] ?? request.seed + image,
  };
}
