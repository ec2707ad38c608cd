/** Curves, sample grids and settings of one training. */

import { useMemo, useState } from "preact/hooks";
import { gridAddress } from "../../api/client";
import type { ModelInfo, Run } from "../../api/types";
import { type Figure, toFigures, words } from "../../logic/curves";
import { Chart } from "../../ui/chart";
import { CheckBox, IconButton } from "../../ui/fields";

/** Number of figures shown at first. */
const FIRST = 4;

export function Training({ run, model }: { run: Run; model: ModelInfo }) {
  return (
    <>
      <div class="training">
        <Curves run={run} />
        <Grids run={run} model={model} />
      </div>
      <details class="recipe">
        <summary>Settings of this training (YAML)</summary>
        {run.settings ? (
          <pre tabIndex={0} aria-label="Settings">
            {run.settings}
          </pre>
        ) : (
          <p class="quiet">The run folder has none.</p>
        )}
      </details>
    </>
  );
}

function Curves({ run }: { run: Run }) {
  const figures = useMemo(() => toFigures(run.curves), [run]);
  const [shown, setShown] = useState(() => new Set(figures.slice(0, FIRST).map(({ name }) => name)));
  const [log, setLog] = useState(false);
  const toggle = (name: string) => {
    const next = new Set(shown);
    if (!next.delete(name)) next.add(name);
    setShown(next);
  };
  if (!figures.length) return <p class="quiet">This training wrote no metrics.</p>;
  return (
    <section class="curves" aria-label="Curves">
      <fieldset class="chips">
        <legend>Figures</legend>
        {figures.map(({ name }) => (
          <label key={name}>
            <input type="checkbox" checked={shown.has(name)} onChange={() => toggle(name)} />
            <span>{words(name)}</span>
          </label>
        ))}
      </fieldset>
      <CheckBox label="logarithmic" checked={log} onChange={setLog} />
      <div class="charts">
        {figures.filter(({ name }) => shown.has(name)).map((figure) => (
          <FigureChart key={figure.name} figure={figure} log={log} />
        ))}
      </div>
      {shown.size === 0 && <p class="quiet">Choose a metric above.</p>}
    </section>
  );
}

function FigureChart({ figure, log }: { figure: Figure; log: boolean }) {
  const lines = useMemo(
    () => figure.lines.map(({ name, curve }) => ({ name, xs: curve.steps, ys: curve.values })),
    [figure],
  );
  return <Chart title={words(figure.name)} lines={lines} xName="step" log={log} />;
}

function Grids({ run, model }: { run: Run; model: ModelInfo }) {
  const { grids, stage } = run;
  const [at, setAt] = useState(grids.length - 1);
  const step = grids[at];
  const what = stage === "tokenizer" ? "images and their reconstructions" : "images drawn from the same seeds";
  return (
    <section class="grids" aria-label="Sample grids">
      <figure class="panel">
        <figcaption>
          <strong>While it was trained</strong>
          <span>{step === undefined ? "" : `step ${step.toLocaleString("en")}`}</span>
        </figcaption>
        <div class="frame">
          {step === undefined ? (
            <p class="caption-over">This training wrote no sample grids.</p>
          ) : (
            <img src={gridAddress(model.name, stage, step)} alt={`At step ${step}: ${what}`} />
          )}
        </div>
      </figure>
      {grids.length > 1 && (
        <div class="transport">
          <IconButton icon="previous" label="Earlier grid" onClick={() => setAt(at - 1)} disabled={at === 0} />
          <IconButton icon="next" label="Later grid" onClick={() => setAt(at + 1)} disabled={at === grids.length - 1} />
          <input
            type="range"
            aria-label="Step of training"
            aria-valuetext={`step ${step}`}
            min={0}
            max={grids.length - 1}
            value={at}
            style={{ "--share": `${(100 * at) / (grids.length - 1)}%` }}
            onInput={(event) => setAt(Number(event.currentTarget.value))}
          />
        </div>
      )}
      {step !== undefined && <p class="quiet">{what.charAt(0).toUpperCase() + what.slice(1)}.</p>}
    </section>
  );
}
