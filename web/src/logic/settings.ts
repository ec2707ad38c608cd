/** The fields of a form, as part of a request and of the address. */

import type { Limits, ModelInfo, SamplingOptions } from "../api/types";

/** Text of every field; empty means "as the model was saved". */
export interface Settings {
  label: string;
  count: string;
  seed: string;
  steps: string;
  token_order: string;
  schedule: string;
  temperature: string;
  top_k: string;
  top_p: string;
  preset: string;
  cell_solver: string;
  cell_steps: string;
}

export type SettingName = keyof Settings;

export const EMPTY: Settings = {
  label: "",
  count: "1",
  seed: "0",
  steps: "",
  token_order: "",
  schedule: "",
  temperature: "",
  top_k: "",
  top_p: "",
  preset: "",
  cell_solver: "",
  cell_steps: "",
};

export const NAMES = Object.keys(EMPTY) as SettingName[];
export const SAMPLING_NAMES = NAMES.filter((name) => !["label", "count", "seed"].includes(name));
const TEXTS: SettingName[] = ["token_order", "preset", "cell_solver"];

/** The initial fields: the first class if the model has classes. */
export function initialSettings(model: ModelInfo): Settings {
  return { ...EMPTY, label: model.class_names.length ? "0" : "" };
}

export const labelOf = (settings: Settings): number | null => (settings.label === "" ? null : Number(settings.label));

/** The sampling settings that were given; the server checks their values. */
export function toSampling(settings: Settings): SamplingOptions {
  const given = SAMPLING_NAMES.filter((name) => settings[name] !== "");
  return Object.fromEntries(given.map((name) => [name, toValue(name, settings[name])])) as SamplingOptions;
}

function toValue(name: SettingName, text: string): string | number | number[] {
  if (name === "schedule") return toSchedule(text);
  return TEXTS.includes(name) ? text : Number(text);
}

function toSchedule(text: string): string | number[] {
  return /^[\d\s,]+$/.test(text) ? text.split(/[\s,]+/).filter(Boolean).map(Number) : text;
}

/** The settings that differ from the start, for the address. */
export function toQuery(settings: Settings, start: Settings, prefix = ""): [string, string][] {
  return NAMES.filter((name) => settings[name] !== start[name]).map((name) => [prefix + name, settings[name]]);
}

export function fromQuery(query: URLSearchParams, start: Settings, prefix = ""): Settings {
  const settings = { ...start };
  for (const name of NAMES) settings[name] = query.get(prefix + name) ?? settings[name];
  return settings;
}

/** Names of the settings in which two forms differ. */
export const differences = (a: Settings, b: Settings): Set<SettingName> =>
  new Set(SAMPLING_NAMES.filter((name) => a[name] !== b[name]));

/** The default of a setting, in words. */
export function defaultOf(model: ModelInfo, name: SettingName): string {
  const sampling: Partial<Record<SettingName, unknown>> = model.sampling;
  const value = sampling[name];
  if (name === "steps") return value == null ? `${model.grid[0] * model.grid[1]}` : String(value);
  if (value == null) return name === "token_order" ? (model.token_order === "random" ? "random" : "raster") : "off";
  return Array.isArray(value) ? value.join(", ") : String(value);
}

export const cellsOf = ({ grid }: ModelInfo) => grid[0] * grid[1];

/** The most images of a number of cells in one request. */
export const mostImages = (cells: number, limits: Limits) =>
  Math.max(1, Math.min(limits.count, Math.floor(limits.cells / cells)));

export const randomSeed = () => Math.floor(Math.random() * 1e6);
