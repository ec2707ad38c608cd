/** What the Generate page shows: the generations so far, the one looked at, its image, state and cells. */

import { batch, computed, signal } from "@preact/signals";
import type { ImageRequest } from "../api/client";
import type { ModelInfo } from "../api/types";
import { bytesOf, lastStep, type Origin, type Trace } from "../logic/trace";
import { Generation } from "./generation";

/** Number of generations that are kept. */
const KEPT = 40;
/** Bytes of pictures kept for generations that are not shown; above, the oldest keep a few pictures only. */
const BYTES = 96e6;
const STATES = 8;

export const generations = signal<Generation[]>([]);
export const current = signal<Generation | null>(null);
export const image = signal(0);
/** The last request, if it was not accepted: what was there before is shown on. */
export const refused = signal<Trace | null>(null);
/** The cell pointed at, in all maps at once. */
export const cursor = signal<number | null>(null);
/** The cell whose distribution is shown. */
export const asked = signal<number | null>(null);
export const playing = signal(false);

/** The state looked at; null follows the newest. */
const chosenStep = signal<number | null>(null);

export const trace = computed(() => current.value?.trace.value ?? null);

export const step = computed(() => {
  const last = Math.max(0, trace.value ? lastStep(trace.value) : 0);
  return chosenStep.value === null ? last : Math.min(chosenStep.value, last);
});

export function showStep(at: number): void {
  const shown = trace.peek();
  if (!shown) return;
  const last = lastStep(shown);
  const running = current.peek()?.isActive ?? false;
  chosenStep.value = at >= last && running ? null : Math.max(0, Math.min(at, last));
}

export function show(generation: Generation | null): void {
  const before = current.peek();
  if (before) before.image = image.peek();
  batch(() => {
    current.value = generation;
    image.value = generation?.image ?? 0;
    refused.value = null;
    chosenStep.value = null;
    asked.value = null;
    cursor.value = null;
    playing.value = false;
    thinOut();
  });
}

function thinOut(): void {
  const others = generations.peek().filter((one) => one !== current.peek() && !one.isActive);
  let bytes = others.reduce((sum, one) => sum + bytesOf(one.trace.peek()), 0);
  for (const one of others) {
    if (bytes <= BYTES) return;
    bytes -= bytesOf(one.trace.peek());
    one.thin(STATES);
    bytes += bytesOf(one.trace.peek());
  }
}

/** Ends whatever is being drawn. */
export const stop = () => generations.peek().forEach((generation) => generation.stop());

export function start(model: ModelInfo, request: ImageRequest, origin: Origin | null = null): Generation {
  stop();
  const [before, at] = [current.peek(), chosenStep.peek()];
  const generation = new Generation(model, request, origin);
  batch(() => {
    generations.value = [...generations.peek(), generation].slice(-KEPT);
    show(generation);
  });
  void generation.run().then(() => generation.isRefused && takeBack(generation, before, at));
  return generation;
}

/** Shows again what was there before a request that was not accepted, and says why it was not. */
function takeBack(generation: Generation, before: Generation | null, at: number | null): void {
  batch(() => {
    generations.value = generations.peek().filter((one) => one !== generation);
    if (current.peek() !== generation) return;
    show(before);
    chosenStep.value = at;
    refused.value = generation.trace.peek();
  });
}
