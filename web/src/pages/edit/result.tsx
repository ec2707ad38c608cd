/** The edited image: while it is sampled, then next to the original. */

import { useEffect, useState } from "preact/hooks";
import type { Size } from "../../api/types";
import type { Source } from "../../logic/repaint";
import { filledAt, gridOf, lastStep, pictureAt, type Trace } from "../../logic/trace";
import { before, resultIndex, resultTrace, takeBack } from "../../store/editing";
import { Downloads } from "../../ui/downloads";
import { GridView } from "../../ui/grid_view";
import { Icon } from "../../ui/icons";
import { placedPng } from "../../ui/pictures";
import { Panel } from "../../ui/panel";
import { Thumb, seedOf } from "../../ui/thumb";
import { BeforeAfter } from "./before_after";
import { workOnWithResult } from "./upload";

export function Result({ source }: { source: Source }) {
  const trace = resultTrace.value;
  const count = trace?.request.count ?? 0;
  return (
    <div class="result">
      {trace ? <Picture {...{ trace, source }} /> : <NothingYet source={source} />}
      {count > 1 && (
        <div class="thumbs" role="radiogroup" aria-label="Which result is shown">
          {Array.from({ length: count }, (_, i) => (
            <label key={i} class="thumb">
              <input type="radio" name="result" checked={i === resultIndex.value} onChange={() => (resultIndex.value = i)} />
              <Thumb trace={trace!} index={i} at={trace!.states.length} />
              <span>seed {seedOf(trace!, i)}</span>
            </label>
          ))}
        </div>
      )}
      <div class="downloads">
        <Downloads trace={trace} index={resultIndex.value} />
        <button type="button" disabled={!trace?.done} onClick={() => void workOnWithResult()}>
          <Icon name="edit" /> Use result as the image
        </button>
        {before.value.length > 0 && (
          <button type="button" onClick={takeBack}>
            <Icon name="undo" /> The image before
          </button>
        )}
      </div>
    </div>
  );
}

function NothingYet({ source }: { source: Source }) {
  const [rows, columns] = source.size.map((length) => length / source.model.factor) as Size;
  return (
    <Panel title="Result">
      <GridView {...{ rows, columns }} png={null} covered={() => true} label="No result yet" />
      <p class="caption-over">The repainted image appears here.</p>
    </Panel>
  );
}

function Picture({ trace, source }: { trace: Trace; source: Source }) {
  const [rows, columns] = gridOf(trace);
  const index = resultIndex.value;
  const original = useOriginal(trace, source);
  const finished = trace.done?.images[index];
  if (finished && original) {
    return (
      <figure class="panel">
        <figcaption>
          <strong>Result</strong>
          <span>seed {finished.seed}, right of the line</span>
        </figcaption>
        <BeforeAfter before={original} after={finished.picture} aspect={columns / rows} />
      </figure>
    );
  }
  const at = Math.max(0, lastStep(trace));
  const { rank, count } = filledAt(trace, index, at);
  return (
    <Panel title="Result" aside={`${count} of ${rows * columns} cells`}>
      <GridView
        {...{ rows, columns }}
        png={pictureAt(trace, index, at)}
        covered={(cell) => rank[cell]! < 0}
        label="The result so far"
      />
    </Panel>
  );
}

/** The image that a result was made of, on the canvas of the result. */
function useOriginal(trace: Trace, source: Source): string | null {
  const [original, setOriginal] = useState<string | null>(null);
  useEffect(() => {
    let stale = false;
    const { factor } = trace.model;
    const canvas = gridOf(trace).map((cells) => cells * factor) as Size;
    const first = trace.request.known?.cells[0] ?? 0; // where the image begins on its canvas
    const columns = canvas[1] / factor;
    const [top, left] = [Math.floor(first / columns) * factor, (first % columns) * factor];
    if (canvas.join() === source.size.join()) setOriginal(source.picture);
    else {
      const show = (png: string | null) => !stale && setOriginal(png);
      void placedPng(source.picture, canvas, [top, left]).then(show, () => show(null)); // then the result stands alone
    }
    return () => {
      stale = true;
    };
  }, [trace.id, source]);
  return original;
}
