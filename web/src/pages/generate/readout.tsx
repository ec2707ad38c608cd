/** One line under the panels about the cell under the cursor. */

import type { ModelInfo } from "../../api/types";
import { believedAt, filledAt, gridOf, isComplete, lastStep, type Trace } from "../../logic/trace";
import { uncertaintyName, unitOf } from "../../logic/uncertainty";
import { cursor, image, step, trace } from "../../store/stage";

export function Readout({ model }: { model: ModelInfo }) {
  const shown = trace.value;
  const cell = cursor.value;
  const byKeys = document.activeElement?.matches("canvas.interactive") ?? false; // else it would be read out under the mouse
  return (
    <p class="readout" aria-live={byKeys ? "polite" : "off"}>
      {!shown?.states.length ? welcome(model) : cell === null ? hint(shown) : describe(shown, cell)}
    </p>
  );
}

const welcome = ({ grid, believes }: ModelInfo) =>
  `Press Generate: the model fills ${grid[0] * grid[1]} cells one by one. At each step you see what it has read${
    believes ? ", what it predicts, and where it is uncertain." : "."
  }`;

function hint(trace: Trace): string {
  if (isComplete(trace) && step.value === lastStep(trace)) {
    return "Finished. Move the slider back to query a cell, or to continue differently from there.";
  }
  const click = "Outlined cells are filled next. Click a cell that is not read yet to see what it could become.";
  return trace.model.believes ? `${click} Point at a cell to see its uncertainty.` : click;
}

function describe(trace: Trace, cell: number): string {
  const [, columns] = gridOf(trace);
  const place = `Row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}`;
  const { rank, step: filledIn } = filledAt(trace, image.value, step.value);
  if (rank[cell]! >= 0) {
    return filledIn[cell]! < 0 ? `${place}: given` : `${place}: filled in step ${filledIn[cell]! + 1}, as number ${rank[cell]! + 1}`;
  }
  const { uncertainty_name: name } = trace.model;
  const value = believedAt(trace, image.value, step.value)?.state.uncertainty?.[cell];
  const known = value === undefined ? "" : `, ${uncertaintyName(name).toLowerCase()} ${value.toFixed(2)} ${unitOf(name)}`;
  return `${place}: not read yet${known}`;
}
