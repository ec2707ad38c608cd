/** A model in one line. */

import type { ModelInfo } from "../api/types";

export function ModelFacts({ model }: { model: ModelInfo }) {
  const { size, grid, vocabulary_size: codes, channels } = model;
  const tokens = codes ? `${codes.toLocaleString("en")} codes` : `vectors of ${channels}`;
  return (
    <p class="facts">
      {short(model.parameters)} parameters, {model.head.replace("_", " ")} head, {grid[0]} × {grid[1]} cells of {tokens}, {size[0]} ×{" "}
      {size[1]} pixels
    </p>
  );
}

/** 1234567 as "1.2 M". */
export function short(number: number): string {
  const [unit, name] = number >= 1e9 ? [1e9, " G"] : number >= 1e6 ? [1e6, " M"] : number >= 1e3 ? [1e3, " k"] : [1, ""];
  const value = number / unit;
  return `${value >= 100 || unit === 1 ? Math.round(value) : value.toFixed(1)}${name}`;
}
