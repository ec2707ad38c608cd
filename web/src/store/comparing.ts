/** Two sides that draw the same seeds with different models or settings. */

import { signal } from "@preact/signals";
import type { ModelInfo } from "../api/types";
import { labelOf, toSampling } from "../logic/settings";
import { Form } from "./form";
import { Generation } from "./generation";
import { served } from "./models";
import { route } from "./route";

export type Side = "a" | "b";

/** Class, count and seeds are those of A's form. */
export const formA = new Form("compare", signal(""), "a.");
export const formB = new Form("compare", signal(""), "b.");
formA.pairWith(formB);

export const forms: Record<Side, Form> = { a: formA, b: formB };
export const runs = signal<Record<Side, Generation> | null>(null);
/** Share of the steps, 0 to 1, at which both are shown. */
export const share = signal(1);
export const problem = signal<string | null>(null);

let isLoaded = false;

/** The first time A is as the model was saved; B is another model, or the same one in fewer steps. */
export function load(): void {
  formA.load();
  formB.load();
  if (isLoaded) return;
  isLoaded = true;
  const wasSet = [...route.peek().query.keys()].length > 0 || formB.wasStored;
  if (wasSet) return;
  const models = served.peek()?.models ?? [];
  const [first] = models;
  if (!first) return;
  formA.set("count", "4");
  if (models.length > 1) formB.choose(models[1]!.name);
  else if (["cross", "global"].includes(first.head) && first.grid[0] * first.grid[1] > 8) formB.set("steps", "8");
}

/** A's class as B's model counts it: by name. Undefined if it has none of this name. */
export function labelFor(model: ModelInfo, other: ModelInfo, label: number | null): number | null | undefined {
  if (label === null) return other.needs_label ? undefined : null;
  const at = other.class_names.indexOf(model.class_names[label] ?? "");
  if (other.class_names[label] === model.class_names[label]) return label;
  return at < 0 ? undefined : at;
}

/** Chooses a side's model; class, count and seeds stay. */
export function choose(side: Side, name: string): void {
  const [kept, before] = [formA.settings.peek(), formA.model.peek()];
  forms[side].choose(name);
  const model = formA.model.peek();
  if (side === "b" || !before || !model) return;
  formA.set("count", kept.count);
  formA.set("seed", kept.seed);
  const label = labelFor(before, model, labelOf(kept));
  if (label !== undefined) formA.set("label", String(label ?? ""));
}

export function run(): void {
  const [a, b] = [formA.model.peek(), formB.model.peek()];
  if (!a || !b) return;
  stop();
  const shared = formA.settings.peek();
  const label = labelOf(shared);
  const other = labelFor(a, b, label);
  if (other === undefined) {
    const name = label === null ? "no class" : `the class “${a.class_names[label]}”`;
    problem.value = `${b.name} cannot draw ${name}: choose a class that both models have.`;
    return;
  }
  problem.value = null;
  const start = (model: ModelInfo, form: Form, own: number | null) => {
    const sampling = toSampling(form.settings.peek());
    const generation = new Generation(model, { model: model.name, label: own, count: Number(shared.count), seed: Number(shared.seed), sampling });
    void generation.run();
    return generation;
  };
  runs.value = { a: start(a, formA, label), b: start(b, formB, other) };
  share.value = 1;
}

export function stop(): void {
  runs.peek()?.a.stop();
  runs.peek()?.b.stop();
}
