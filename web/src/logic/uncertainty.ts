/** The parts of a model's `uncertainty_name`, such as "entropy (nats)". */

/** "Entropy" of "entropy (nats)". */
export function uncertaintyName(name: string): string {
  const plain = name.split(" (")[0] ?? name;
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

/** "nats" of "entropy (nats)". */
export const unitOf = (name: string) => /\((.*)\)/.exec(name)?.[1] ?? "";
