/** The settings on a page's form. They are kept per model for the session, and in the address. */

import { batch, computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { ModelInfo } from "../api/types";
import { EMPTY, fromQuery, initialSettings, type SettingName, type Settings, toQuery } from "../logic/settings";
import { findModel, served } from "./models";
import { type Page, remember, route } from "./route";

export class Form {
  readonly settings: Signal<Settings> = signal(EMPTY);
  readonly model: ReadonlySignal<ModelInfo | null>;
  private readonly siblings: Form[] = [this];

  constructor(
    private readonly page: Page,
    private readonly name: Signal<string>,
    private readonly prefix = "",
  ) {
    this.model = computed(() => findModel(name.value));
  }

  /** Forms whose settings share the page's address. */
  pairWith(other: Form): void {
    this.siblings.push(other);
    other.siblings.unshift(this);
  }

  /** Whether settings of the model were kept before. */
  get wasStored(): boolean {
    const model = this.model.peek();
    return model !== null && !!read(this.key(model.name));
  }

  /** Takes what the address says, else what was set before, else the model's own. */
  load(): void {
    const { query } = route.peek();
    batch(() => {
      this.name.value = query.get(`${this.prefix}model`) ?? (this.name.value || (read(`${this.key("")}model`) ?? ""));
      const model = this.model.value;
      if (!model) return;
      const given = [...query.keys()].some((key) => key !== "model" && key.startsWith(this.prefix));
      this.settings.value = given ? fromQuery(query, initialSettings(model), this.prefix) : this.stored(model);
    });
    this.save();
  }

  choose(name: string): void {
    batch(() => {
      this.name.value = name;
      const model = this.model.value;
      if (model) this.settings.value = this.stored(model);
    });
    this.save();
  }

  set(name: SettingName, value: string): void {
    this.settings.value = { ...this.settings.value, [name]: value };
    this.save();
  }

  reset(): void {
    const model = this.model.value;
    if (!model) return;
    const { label, count, seed } = this.settings.value;
    this.settings.value = { ...initialSettings(model), label, count, seed };
    this.save();
  }

  private key(model: string): string {
    return `heptapod/${this.page}/${this.prefix}/${model}`;
  }

  private stored(model: ModelInfo): Settings {
    const start = initialSettings(model);
    return fromQuery(new URLSearchParams(read(this.key(model.name)) ?? ""), start);
  }

  private save(): void {
    const model = this.model.value;
    if (!model) return;
    const own = new URLSearchParams(toQuery(this.settings.value, initialSettings(model))).toString();
    write(this.key(model.name), own);
    write(`${this.key("")}model`, model.name);
    remember(this.page, this.siblings.flatMap((form) => form.address()));
  }

  private address(): [string, string][] {
    const model = this.model.value;
    if (!model) return [];
    const several = (served.value?.models.length ?? 0) > 1;
    const name: [string, string][] = several ? [[`${this.prefix}model`, model.name]] : [];
    return [...name, ...toQuery(this.settings.value, initialSettings(model), this.prefix)];
  }
}

/** A browser may refuse to keep anything; then nothing is kept. */
function read(key: string): string | null {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function write(key: string, value: string): void {
  try {
    sessionStorage.setItem(key, value);
  } catch {
    return;
  }
}
