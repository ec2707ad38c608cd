/** A trace of a 2 × 3 grid of codes: cell 5 is known, three steps fill the rest of two images. */

import type { ImageState, ModelInfo, StepEvent } from "../src/api/types";
import type { Trace } from "../src/logic/trace";

export const model: ModelInfo = {
  name: "tiny",
  class_names: ["a", "b"],
  needs_label: false,
  size: [8, 12],
  grid: [2, 3],
  factor: 4,
  vocabulary_size: 10,
  channels: 0,
  head: "cross",
  believes: true,
  token_order: "mixed",
  token_orders: ["raster", "random"],
  sampling: { steps: null, token_order: "raster", schedule: "cosine", temperature: 1, top_k: null },
  uncertainty_name: "entropy (nats)",
  parameters: 1234,
  about: {},
  has_run: false,
};

const state = (cells: number[], values: number[], picture: string | null, uncertainty: number[] | null): ImageState => ({
  cells,
  values,
  picture,
  uncertainty,
});

const states: StepEvent[] = [
  { step: 0, images: [state([0], [7], "p0", [1, 2, 3, 4, 5, 0]), state([4], [1], "q0", [0, 0, 0, 0, 9, 0])] },
  { step: 1, images: [state([2, 1], [8, 9], null, null), state([0, 1], [2, 3], null, null)] },
  { step: 2, images: [state([3, 4], [5, 6], "p2", [0, 0, 0, 2, 1, 0]), state([2, 3], [4, 5], "q2", null)] },
  { step: 3, images: [state([], [], "p3", [0, 0, 0, 0, 0, 0]), state([], [], "q3", null)] },
];

export const trace: Trace = {
  id: 1,
  model,
  request: {
    model: "tiny",
    label: 1,
    count: 2,
    seed: 40,
    known: { cells: [5], values: [3], in_order: true },
    sampling: { steps: 3, temperature: 0.5 },
  },
  origin: null,
  status: "done",
  ahead: 0,
  started: {
    grid: [2, 3],
    factor: 4,
    label: 1,
    seeds: [40, 41],
    known: [5],
    steps: [1, 2, 2],
    sampling: {},
    uncertainty_name: "entropy (nats)",
    warnings: [],
  },
  states,
  done: null,
  problem: null,
};
