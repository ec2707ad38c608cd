/** One request followed over its states: what was read before each of them, and when each cell was filled. */

import type { ImageRequest } from "../api/client";
import type { Done, ImageState, ModelInfo, Size, Started, StepEvent } from "../api/types";
import { type Token, toTokens } from "./tokens";

/** Where a trace was continued from. */
export interface Origin {
  trace: number;
  image: number;
  step: number;
  name: string;
  /** The cell whose value was chosen by hand. */
  pinned?: number;
}

export type TraceStatus = "waiting" | "running" | "done" | "stopped" | "failed";

export interface Trace {
  id: number;
  model: ModelInfo;
  request: ImageRequest;
  origin: Origin | null;
  status: TraceStatus;
  /** Requests before it in the queue. */
  ahead: number;
  started: Started | null;
  states: StepEvent[];
  done: Done | null;
  problem: string | null;
}

/** Cells in reading order and their tokens. */
export interface Cells {
  cells: number[];
  tokens: Token[];
}

export const lastStep = (trace: Trace) => trace.states.length - 1;

/** Whether every state has arrived. */
export const isComplete = (trace: Trace) =>
  trace.started !== null && trace.states.length === trace.started.steps.length + 1;

export const gridOf = (trace: Trace): Size => trace.started?.grid ?? sizeInCells(trace);

function sizeInCells({ model, request }: Trace): Size {
  const [height, width] = request.size ?? model.size;
  return [height / model.factor, width / model.factor];
}

/** What one image has read at a state: the known cells, then those of every step before it. */
export function readAt(trace: Trace, image: number, step: number): Cells {
  const { channels } = trace.model;
  const known = trace.request.known;
  const cells = known ? [...known.cells] : [];
  const tokens = known ? toTokens(known.values, channels).slice() : [];
  for (const state of trace.states.slice(0, step)) {
    const filled = state.images[image];
    if (!filled) continue;
    cells.push(...filled.cells);
    tokens.push(...toTokens(filled.values, channels));
  }
  return { cells, tokens };
}

/** When each cell was filled, up to a state. */
export interface Filled {
  /** Per cell: its place in the reading order, -1 if it has not been read. */
  rank: Int32Array;
  /** Per cell: the step that filled it, -1 if it was known or has not been read. */
  step: Int32Array;
  /** How many cells have been read. */
  count: number;
}

export function filledAt(trace: Trace, image: number, step: number): Filled {
  const [rows, columns] = gridOf(trace);
  const filled: Filled = {
    rank: new Int32Array(rows * columns).fill(-1),
    step: new Int32Array(rows * columns).fill(-1),
    count: 0,
  };
  const read = (cell: number, at: number) => {
    filled.rank[cell] = filled.count++;
    filled.step[cell] = at;
  };
  for (const cell of trace.request.known?.cells ?? []) read(cell, -1);
  trace.states.slice(0, step).forEach((state, at) => {
    for (const cell of state.images[image]?.cells ?? []) read(cell, at);
  });
  return filled;
}

/** The latest state up to `step` that was pictured, and its number. */
export function believedAt(trace: Trace, image: number, step: number): { state: ImageState; step: number } | null {
  for (let at = Math.min(step, lastStep(trace)); at >= 0; at--) {
    const state = trace.states[at]?.images[image];
    if (state?.picture) return { state, step: at };
  }
  return null;
}

/** A picture in which every cell read at `step` is as it was drawn: the next pictured state, or the latest before. */
export function pictureAt(trace: Trace, image: number, step: number): string | null {
  for (let at = step; at <= lastStep(trace); at++) {
    const picture = trace.states[at]?.images[image]?.picture;
    if (picture) return picture;
  }
  return believedAt(trace, image, step)?.state.picture ?? null;
}

/** Bytes that the pictures and maps of a trace take. */
export function bytesOf({ states, done }: Trace): number {
  const drawn = states.flatMap(({ images }) => images);
  const maps = drawn.reduce((sum, { uncertainty }) => sum + 8 * (uncertainty?.length ?? 0), 0);
  return [...drawn, ...(done?.images ?? [])].reduce((sum, { picture }) => sum + (picture?.length ?? 0), maps);
}

/** The same trace with at most n pictures, of the first state, the last and some between; all tokens stay. */
export function thinned(trace: Trace, most: number): Trace {
  const pictured = trace.states.filter(({ images }) => images.some(({ picture }) => picture));
  if (pictured.length <= most) return trace;
  const kept = new Set(Array.from({ length: most }, (_, i) => pictured[Math.round((i * (pictured.length - 1)) / (most - 1))]));
  const bare = (image: ImageState): ImageState => ({ ...image, picture: null, uncertainty: null });
  return { ...trace, states: trace.states.map((state) => (kept.has(state) ? state : { ...state, images: state.images.map(bare) })) };
}

/** The tokens of all cells of a finished image in raster order. */
export function finishedTokens(trace: Trace, image: number): Token[] {
  const { cells, tokens } = readAt(trace, image, trace.states.length);
  const grid = new Array<Token>(cells.length);
  cells.forEach((cell, i) => (grid[cell] = tokens[i] as Token));
  return grid;
}

/** The largest uncertainty of an image over all its states, which keeps the colors of its map comparable. */
export function highestUncertainty(trace: Trace, image: number): number {
  let highest = 0;
  for (const state of trace.states) {
    for (const value of state.images[image]?.uncertainty ?? []) highest = Math.max(highest, value);
  }
  return highest;
}
