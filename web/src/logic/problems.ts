/** Which setting a problem that the server tells is about. */

import { NAMES, type SettingName } from "./settings";

/** "steps: 99 given, …" and "sampling.steps: …" are about steps; most others about none. */
export function settingOf(problem: string | null): SettingName | null {
  const path = /^([\w.]+):/.exec(problem ?? "")?.[1];
  const name = path?.split(".").findLast((part) => (NAMES as string[]).includes(part));
  return (name as SettingName | undefined) ?? null;
}

export function problemsBySetting(problem: string | null): Partial<Record<SettingName, string>> {
  const name = settingOf(problem);
  return name && problem ? { [name]: problem } : {};
}
