/** The image on the Edit page. */

import { signal } from "@preact/signals";
import type { ModelInfo, Size } from "../api/types";
import type { Token } from "../logic/tokens";
import { finishedTokens, gridOf, type Trace } from "../logic/trace";
import { go } from "./route";

export interface Source {
  model: ModelInfo;
  size: Size;
  /** Of all cells, in raster order. */
  tokens: Token[];
  /** PNG, base64. */
  picture: string;
  /** What the tokenizer makes of an upload; null of an image that it decoded anyway. */
  reconstruction: string | null;
  /** What was done to an upload. */
  converted: string[];
  /** What it is called. */
  name: string;
}

export const source = signal<Source | null>(null);

export function takeGenerated(trace: Trace, index: number): void {
  const finished = trace.done?.images[index];
  if (!finished) return;
  const [rows, columns] = gridOf(trace);
  const { factor } = trace.model;
  source.value = {
    model: trace.model,
    size: [rows * factor, columns * factor],
    tokens: finishedTokens(trace, index),
    picture: finished.picture,
    reconstruction: null,
    converted: [],
    name: `generated, seed ${finished.seed}`,
  };
}

export function editGenerated(trace: Trace, index: number): void {
  takeGenerated(trace, index);
  go("edit");
}
