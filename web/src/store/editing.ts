/** What the Edit page works on: an image, a mask or a canvas around it, and the result. */

import { batch, computed, signal } from "@preact/signals";
import type { Encoded, ModelInfo, Size } from "../api/types";
import { copyMask, emptyMask, type Mask } from "../logic/mask";
import { type Placement, suggested } from "../logic/outpaint";
import type { Source } from "../logic/repaint";
import { toTokens } from "../logic/tokens";
import { finishedTokens, gridOf, type Trace } from "../logic/trace";
import type { Generation } from "./generation";
import { served } from "./models";
import { go } from "./route";

export type Mode = "in" | "out";
export type Tool = "brush" | "eraser" | "rectangle";

/** So many strokes can be undone. */
const UNDO = 50;

export const source = signal<Source | null>(null);
export const mode = signal<Mode>("in");
export const tool = signal<Tool>("brush");
/** Diameter in pixels. */
export const brushSize = signal(8);
export const keepPixels = signal(true);
export const showReconstruction = signal(false);
export const mask = signal<Mask>(emptyMask([1, 1]));
export const placement = signal<Placement>({ height: 1, width: 1, top: 0, left: 0 });
export const result = signal<Generation | null>(null);
export const resultIndex = signal(0);
export const before = signal<Source[]>([]);
const undone = signal<Mask[]>([]);

export const canUndo = computed(() => undone.value.length > 0);
export const resultTrace = computed(() => result.value?.trace.value ?? null);

export const longestSide = () => served.value?.limits.side ?? 1024;

export function setSource(next: Source): void {
  batch(() => {
    const { size, model } = next;
    const same = source.peek()?.size.join() === size.join();
    source.value = next;
    if (!same) {
      mask.value = emptyMask(size);
      undone.value = [];
      placement.value = suggested(size, model.factor, longestSide());
      brushSize.value = Math.max(1, Math.round(Math.min(...size) / 5));
    }
    showReconstruction.value = false;
  });
}

export function setUpload(model: ModelInfo, encoded: Encoded, name: string): void {
  setSource({
    model,
    size: encoded.size,
    tokens: toTokens(encoded.values, model.channels),
    picture: encoded.picture,
    reconstruction: encoded.reconstruction,
    converted: encoded.converted,
    label: null,
    name,
  });
}

export function fromTrace(trace: Trace, index: number): Source | null {
  const finished = trace.done?.images[index];
  if (!finished) return null;
  const { model, request } = trace;
  const size = gridOf(trace).map((cells) => cells * model.factor) as Size;
  return {
    model,
    size,
    tokens: finishedTokens(trace, index),
    picture: finished.picture,
    reconstruction: null,
    converted: [],
    label: typeof request.label === "number" ? request.label : null,
    name: `drawn with seed ${finished.seed}`,
  };
}

/** Takes a finished image to the Edit page. */
export function editGenerated(trace: Trace, index: number): void {
  const next = fromTrace(trace, index);
  if (!next) return;
  batch(() => {
    result.value = null;
    before.value = [];
    setSource(next);
  });
  go("edit");
}

/** Works on with a result; the image before can be had back. */
export function takeResult(): void {
  const trace = resultTrace.peek();
  const next = trace && fromTrace(trace, resultIndex.peek());
  const previous = source.peek();
  if (!next || !previous) return;
  batch(() => {
    before.value = [...before.peek(), previous];
    setSource(next);
    clear();
    result.value = null;
  });
}

export function takeBack(): void {
  const previous = before.peek().at(-1);
  if (!previous) return;
  batch(() => {
    before.value = before.peek().slice(0, -1);
    setSource(previous);
    result.value = null;
  });
}

/** To be called before the mask is changed. */
export function beginStroke(): void {
  undone.value = [...undone.peek(), copyMask(mask.peek())].slice(-UNDO);
}

/** Changes the mask in place and shows it. */
export function changeMask(change: (mask: Mask) => Mask | void): void {
  mask.value = change(mask.peek()) ?? { ...mask.peek() };
}

export function undo(): void {
  const last = undone.peek().at(-1);
  if (!last) return;
  batch(() => {
    mask.value = last;
    undone.value = undone.peek().slice(0, -1);
  });
}

export function clear(): void {
  beginStroke();
  mask.value = emptyMask([mask.peek().height, mask.peek().width]);
}
