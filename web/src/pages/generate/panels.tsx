/** The image so far, the model's belief (its prediction of every unread cell), its uncertainty and the fill order. */

import { useMemo } from "preact/hooks";
import type { ModelInfo } from "../../api/types";
import { HEAT_GRADIENT, heat, TIME_GRADIENT, time } from "../../logic/color";
import { believedAt, filledAt, gridOf, highestUncertainty, pictureAt, type Trace } from "../../logic/trace";
import { uncertaintyName, unitOf } from "../../logic/uncertainty";
import { asked, cursor, image, step, trace } from "../../store/stage";
import { GridView } from "../../ui/grid_view";
import { Panel } from "../../ui/panel";
import { Readout } from "./readout";

export const focusImage = () => document.querySelector<HTMLElement>(".stage canvas.interactive")?.focus({ preventScroll: true });

const point = (cell: number | null) => (cursor.value = cell);

export function Panels({ model }: { model: ModelInfo }) {
  const shown = trace.value;
  return (
    <>
      {shown ? <Filled trace={shown} /> : <Empty model={model} />}
      <Readout model={shown?.model ?? model} />
    </>
  );
}

/** The panels before the first image. */
function Empty({ model }: { model: ModelInfo }) {
  const [rows, columns] = model.grid;
  const blank = { rows, columns, png: null, covered: () => true };
  const name = uncertaintyName(model.uncertainty_name);
  return (
    <div class={model.believes ? "panels" : "panels simple"}>
      <Panel title="Read so far" aside={`0 of ${rows * columns} cells`} className="main">
        <GridView {...blank} label="The image, not generated yet" />
        <p class="caption-over">The image grows here, cell by cell.</p>
      </Panel>
      {model.believes && (
        <>
          <Panel title="Believed" aside="the most likely whole picture" className="main">
            <GridView {...blank} label="The prediction, not computed yet" />
            <p class="caption-over">The model’s prediction of every cell it has not read.</p>
          </Panel>
          <Panel title={name}>
            <GridView {...blank} label={`${name}, not computed yet`} />
          </Panel>
        </>
      )}
      <Panel title="Fill order" className={model.believes ? "" : "main"}>
        <GridView {...blank} label="The order, not computed yet" />
      </Panel>
      {!model.believes && <NoBelief model={model} />}
    </div>
  );
}

function Filled({ trace }: { trace: Trace }) {
  const [rows, columns] = gridOf(trace);
  const [at, index] = [step.value, image.value];
  const filled = useMemo(() => filledAt(trace, index, at), [trace, index, at]);
  const state = trace.states[at]?.images[index];
  const fresh = new Set(state?.cells ?? []);
  const common = { rows, columns, cursor: cursor.value, selected: asked.value, onPoint: point };
  const onChoose = (cell: number) => (asked.value = cell);
  const unread = (cell: number) => !state || filled.rank[cell]! < 0;
  const shown = { ...common, onChoose };
  return (
    <div class={trace.model.believes ? "panels" : "panels simple"}>
      <Panel title="Read so far" aside={`${filled.count} of ${rows * columns} cells`} className="main">
        <GridView {...shown} png={pictureAt(trace, index, at)} covered={unread} fresh={fresh} label={soFar(filled.count, rows * columns)} />
      </Panel>
      {trace.model.believes ? <Belief {...{ trace, at, index, shown, unread }} /> : null}
      <Panel
        title="Fill order"
        legend={<Legend gradient={TIME_GRADIENT} low="first" high="last" />}
        className={trace.model.believes ? "" : "main"}
      >
        <GridView
          {...shown}
          png={null}
          covered={() => true}
          fill={(cell) => orderColor(filled.step[cell]!, filled.rank[cell]!, trace)?.fill ?? null}
          text={(cell) => orderText(filled.step[cell]!, filled.rank[cell]!, trace)}
          fresh={fresh}
          label="In which order the cells were filled"
        />
      </Panel>
      {!trace.model.believes && <NoBelief model={trace.model} />}
    </div>
  );
}

interface BeliefProps {
  trace: Trace;
  at: number;
  index: number;
  shown: Omit<Parameters<typeof GridView>[0], "png" | "label">;
  unread: (cell: number) => boolean;
}

function Belief({ trace, at, index, shown, unread }: BeliefProps) {
  const believed = believedAt(trace, index, at);
  const highest = useMemo(() => highestUncertainty(trace, index), [trace, index]);
  const uncertainty = believed?.state.uncertainty ?? [];
  const name = uncertaintyName(trace.model.uncertainty_name);
  const unit = unitOf(trace.model.uncertainty_name);
  const stale = believed && believed.step !== at ? `as of step ${believed.step}` : "the most likely whole picture";
  return (
    <>
      <Panel title="Believed" aside={stale} className="main">
        <GridView {...shown} png={believed?.state.picture ?? null} covered={() => !believed} label="The most likely whole picture, given what was read" />
      </Panel>
      <Panel title={name} legend={<Legend gradient={HEAT_GRADIENT} low="0" high={`${highest.toFixed(2)} ${unit.length > 6 ? "" : unit}`} />}>
        <GridView
          {...shown}
          png={null}
          fill={(cell) => heat(unread(cell) && highest ? (uncertainty[cell] ?? 0) / highest : 0)}
          label={`${name} of every cell, 0 where it has been read`}
        />
      </Panel>
    </>
  );
}

function NoBelief({ model }: { model: ModelInfo }) {
  return (
    <p class="no-belief">
      The {model.head.replace("_", " ")} head of this model predicts only the next cells, not the whole grid. There is no
      belief and no {uncertaintyName(model.uncertainty_name).toLowerCase()} to show. Models with a cross or global head have both.
    </p>
  );
}

function Legend({ gradient, low, high }: { gradient: string; low: string; high: string }) {
  return (
    <span class="legend">
      <span>{low}</span>
      <span class="bar" style={{ background: gradient }} />
      <span>{high}</span>
    </span>
  );
}

function orderColor(filledIn: number, rank: number, trace: Trace) {
  if (rank < 0) return null;
  if (filledIn < 0) return { fill: "#9b95a6", ink: "#1c1826" };
  return time(filledIn / Math.max(1, (trace.started?.steps.length ?? 1) - 1));
}

function orderText(filledIn: number, rank: number, trace: Trace) {
  const color = orderColor(filledIn, rank, trace);
  if (!color) return null;
  return { text: filledIn < 0 ? "·" : String(rank + 1), ink: color.ink };
}

const soFar = (read: number, cells: number) =>
  `The image so far: ${read} of ${cells} cells read. Arrow keys move between cells, Enter queries one.`;
