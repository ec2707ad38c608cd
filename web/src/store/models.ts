/** What the server offers, and the model that Generate, Edit and Understand are about. */

import { computed, signal } from "@preact/signals";
import { getModels } from "../api/client";
import type { ModelInfo, Served } from "../api/types";

export const served = signal<Served | null>(null);
export const loadProblem = signal<string | null>(null);

/** Name of the chosen model; "" is the first one. */
export const chosen = signal("");

export const findModel = (name: string): ModelInfo | null =>
  served.value?.models.find((model) => model.name === name) ?? served.value?.models[0] ?? null;

export const model = computed(() => findModel(chosen.value));

export async function loadModels(): Promise<void> {
  loadProblem.value = null;
  try {
    served.value = await getModels();
  } catch (error) {
    loadProblem.value = (error as Error).message;
  }
}
