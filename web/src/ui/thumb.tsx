/** A small picture of one image of a trace at a state. */

import { filledAt, gridOf, pictureAt, type Trace } from "../logic/trace";
import { GridView } from "./grid_view";

export const seedOf = (trace: Trace, index: number) => trace.started?.seeds[index] ?? trace.request.seed + index;

export function Thumb({ trace, index, at }: { trace: Trace; index: number; at: number }) {
  const [rows, columns] = gridOf(trace);
  const { rank } = filledAt(trace, index, at);
  return (
    <span class="frame">
      <GridView
        {...{ rows, columns }}
        png={pictureAt(trace, index, at)}
        covered={(cell) => rank[cell]! < 0}
        label={`Image with seed ${seedOf(trace, index)}`}
      />
    </span>
  );
}
