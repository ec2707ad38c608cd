/** What the Edit page works on: an image, a mask or a canvas around it, and the result. */

import { batch, computed, signal } from "@preact/signals";
import type { Encoded, ModelInfo, Size } from "../api/types";
import { copyMask, emptyMask, type Mask, touchedCells } from "../logic/mask";
import { type Placement, suggested } from "../logic/outpaint";
import { maskProblem, type Source } from "../logic/repaint";
import { toTokens } from "../logic/tokens";
import { finishedTokens, gridOf, type Trace } from "../logic/trace";
import type { Generation } from "./generation";
import { chosen, model, served } from "./models";
import { go } from "./route";

export type Mode = "in" | "out";
export type Tool = "brush" | "eraser" | "rectangle";

/** Number of strokes that can be undone. */
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
/** The last request, if it was not accepted: the result before is shown on. */
export const refused = signal<Trace | null>(null);
export const before = signal<Source[]>([]);
/** The class that an image was drawn as, until the form has taken it. */
export const pendingLabel = signal<number | null>(null);
const undone = signal<Mask[]>([]);

/** An image on its way to the server, to be read by a model. */
export interface Upload {
  model: ModelInfo;
  file: Blob;
  name: string;
  /** The image on the page that is read again, by another model. */
  again: Source | null;
}

export const pendingUpload = signal<Upload | null>(null);

export const canUndo = computed(() => undone.value.length > 0);
export const resultTrace = computed(() => result.value?.trace.value ?? null);

/** Per cell of the image: whether the mask touches it. */
export const touched = computed(() => (source.value ? touchedCells(mask.value, source.value.model.factor) : []));

const area = ({ height, width }: { height: number; width: number }) => (height * width) / (source.value?.model.factor ?? 1) ** 2;
/** Cells of what is drawn, and how many of them are to be filled. */
export const canvasCells = computed(() => area(mode.value === "in" ? mask.value : placement.value));
export const cellsToFill = computed(() =>
  mode.value === "in" ? touched.value.filter(Boolean).length : canvasCells.value - area(mask.value),
);

/** Why nothing can be drawn now; null if it can. */
export const obstacle = computed(() => {
  if (!source.value || source.value.model.name !== model.value?.name) return "Open an image first.";
  if (mode.value === "in") return maskProblem(cellsToFill.value, canvasCells.value);
  return cellsToFill.value ? null : "The canvas is the image itself: make it larger.";
});

export const longestSide = () => served.value?.limits.side ?? 1024;

/** Ends what is drawn of the image before, on the server too. */
function dropResult(): void {
  result.peek()?.stop();
  result.value = null;
  refused.value = null;
}

/** Works on an image. The mask and the canvas may be kept where the image before had the same size in cells. */
function setSource(next: Source, keeps: boolean): void {
  batch(() => {
    const { size, model } = next;
    const now = source.peek();
    const sameSize = now?.size.join() === size.join();
    source.value = next;
    pendingUpload.value = null;
    if (!sameSize) brushSize.value = Math.max(1, Math.round(Math.min(...size) / 5));
    if (!keeps || !sameSize || now?.model.factor !== model.factor) {
      mask.value = emptyMask(size);
      undone.value = [];
      placement.value = suggested(size, model.factor, longestSide());
    }
    showReconstruction.value = false;
    dropResult();
  });
}

export function setUpload({ model, name, again }: Upload, encoded: Encoded): void {
  const { size, values, picture, reconstruction, converted } = encoded;
  const tokens = toTokens(values, model.channels);
  batch(() => {
    before.value = [];
    setSource({ model, size, tokens, picture, reconstruction, converted, label: null, name }, again !== null);
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
    name: `generated with seed ${finished.seed}`,
  };
}

/** Takes a finished image to the Edit page. */
export function editGenerated(trace: Trace, index: number): void {
  const next = fromTrace(trace, index);
  if (!next) return;
  batch(() => {
    chosen.value = trace.model.name;
    pendingLabel.value = next.label;
    before.value = [];
    setSource(next, false);
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
    setSource(next, true);
    clear();
  });
}

export function takeBack(): void {
  const previous = before.peek().at(-1);
  if (!previous) return;
  batch(() => {
    before.value = before.peek().slice(0, -1);
    setSource(previous, true);
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
