/** Which setting an error of the server is about. */

import type { ModelInfo } from "../api/types";
import { labelOf, NAMES, type SettingName, type Settings, toSampling } from "./settings";
import type { Trace } from "./trace";

/** "steps: 99 given, …" and "sampling.steps: …" are about steps; most others about none. */
export function settingOf(problem: string | null): SettingName | null {
  const path = /^([\w.]+):/.exec(problem ?? "")?.[1];
  const name = path?.split(".").findLast((part) => (NAMES as string[]).includes(part));
  return (name as SettingName | undefined) ?? null;
}

export type Problems = Partial<Record<SettingName, string>>;

/** A trace's problem at the setting that it names, as long as the form has the value that was sent from it. */
export function problemsBySetting(trace: Trace | null, model: ModelInfo, settings: Settings): Problems {
  const name = settingOf(trace?.problem ?? null);
  if (!trace?.problem || !name || trace.origin || trace.model.name !== model.name) return {};
  const { label, count, seed, sampling } = trace.request;
  const sent: Record<string, unknown> = { ...sampling, label, count, seed };
  const given: Record<string, unknown> = {
    ...toSampling(settings),
    label: labelOf(settings),
    count: Number(settings.count),
    seed: Number(settings.seed),
  };
  return JSON.stringify(sent[name]) === JSON.stringify(given[name]) ? { [name]: trace.problem } : {};
}
