/** The images of both sides, a pair for each seed, at the same share of their steps. */

import { signal } from "@preact/signals";
import { HEAT_GRADIENT, heat } from "../../logic/color";
import { believedAt, filledAt, gridOf, highestUncertainty, lastStep, pictureAt, type Trace } from "../../logic/trace";
import { runs, share, type Side } from "../../store/comparing";
import { Downloads } from "../../ui/downloads";
import { Segments } from "../../ui/fields";
import { GridView } from "../../ui/grid_view";
import { Status } from "../../ui/status";
import { seedOf } from "../../ui/thumb";

type View = "read" | "believed" | "uncertainty";
const view = signal<View>("read");

/** The slider's units. */
const WHOLE = 1000;

export function Pairs() {
  if (!runs.value) {
    return (
      <p class="nothing quiet">
        Press <b>Generate both</b>: every seed has an image by A and one by B, and one slider moves both through their steps.
      </p>
    );
  }
  const traces: Record<Side, Trace> = { a: runs.value.a.trace.value, b: runs.value.b.trace.value };
  const believes = traces.a.model.believes || traces.b.model.believes;
  return (
    <section aria-label="Results">
      <div class="sides">
        <Summary side="a" trace={traces.a} />
        <Summary side="b" trace={traces.b} />
      </div>
      <div class="transport">
        {believes && (
          <Segments
            label="What is shown"
            value={view.value}
            options={[
              ["read", "Read so far"],
              ["believed", "Believed"],
              ["uncertainty", "Uncertainty"],
            ]}
            onChange={(value) => (view.value = value)}
          />
        )}
        <input
          type="range"
          aria-label="Share of the steps"
          aria-valuetext={`${Math.round(100 * share.value)} percent of the steps`}
          min={0}
          max={WHOLE}
          step={WHOLE / 100}
          value={share.value * WHOLE}
          style={{ "--share": `${100 * share.value}%` }}
          onInput={(event) => (share.value = Number(event.currentTarget.value) / WHOLE)}
        />
        <output>
          {stepOf(traces.a)} and {stepOf(traces.b)} steps
        </output>
      </div>
      <div class="pairs">
        {Array.from({ length: traces.a.request.count }, (_, i) => (
          <figure key={i} class="pair">
            <Picture side="a" trace={traces.a} index={i} />
            <Picture side="b" trace={traces.b} index={i} />
            {(["a", "b"] as const).map((side) => (
              <div key={side} class="files">
                <Downloads trace={traces[side]} index={i} of={`${side.toUpperCase()}, seed ${seedOf(traces[side], i)}`} />
              </div>
            ))}
            <figcaption>seed {seedOf(traces.a, i)}</figcaption>
          </figure>
        ))}
      </div>
      {view.value === "uncertainty" && (
        <p class="legend">
          <span>0</span>
          <span class="bar" style={{ background: HEAT_GRADIENT }} />
          <span>the highest of A and of B, each in its own unit: {[...new Set([traces.a, traces.b].map((trace) => trace.model.uncertainty_name))].join("; ")}</span>
        </p>
      )}
    </section>
  );
}

function Summary({ side, trace }: { side: Side; trace: Trace }) {
  return (
    <div class={`summary ${side}`}>
      <span class="badge">{side.toUpperCase()}</span>
      <Status trace={trace} />
    </div>
  );
}

function stepOf(trace: Trace): number {
  const steps = trace.started?.steps.length ?? 0;
  return Math.max(0, Math.min(Math.round(share.value * steps), lastStep(trace)));
}

function Picture({ side, trace, index }: { side: Side; trace: Trace; index: number }) {
  const [rows, columns] = gridOf(trace);
  const at = stepOf(trace);
  const { rank } = filledAt(trace, index, at);
  const unread = (cell: number) => rank[cell]! < 0;
  const label = `${side.toUpperCase()}, seed ${seedOf(trace, index)}`;
  return (
    <div class={`frame ${side}`}>
      {view.value === "uncertainty" && trace.model.believes ? (
        <Heat {...{ trace, index, at, label, unread }} />
      ) : (
        <GridView
          {...{ rows, columns, label }}
          png={view.value === "believed" ? (believedAt(trace, index, at)?.state.picture ?? null) : pictureAt(trace, index, at)}
          covered={view.value === "believed" && trace.model.believes && trace.states.length ? () => false : unread}
        />
      )}
      <span class="badge" aria-hidden="true">
        {side.toUpperCase()}
      </span>
    </div>
  );
}

interface HeatProps {
  trace: Trace;
  index: number;
  at: number;
  label: string;
  unread: (cell: number) => boolean;
}

function Heat({ trace, index, at, label, unread }: HeatProps) {
  const [rows, columns] = gridOf(trace);
  const uncertainty = believedAt(trace, index, at)?.state.uncertainty ?? [];
  const highest = Math.max(highestUncertainty(trace, index), 1e-9);
  return (
    <GridView
      {...{ rows, columns, label }}
      png={null}
      fill={(cell) => heat(unread(cell) ? (uncertainty[cell] ?? 0) / highest : 0)}
    />
  );
}
