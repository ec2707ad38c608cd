/** Ask a cell: what it could become, how likely each choice is, and what would follow from it. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { askCell, isAbort } from "../../api/client";
import type { Candidate, CellAnswer } from "../../api/types";
import { cellRequest, pinRequest } from "../../logic/continue";
import { filledAt, gridOf, type Trace } from "../../logic/trace";
import { asked, image, showStep, start, step, trace } from "../../store/stage";
import { IconButton, Notice } from "../../ui/fields";
import { Icon } from "../../ui/icons";
import { NARROW } from "../../ui/canvas";
import { PatchView } from "../../ui/patch_view";
import { uncertaintyName, unitOf } from "./panels";

const TOP = 8;
const answer = signal<CellAnswer | null>(null);
const problem = signal<string | null>(null);
const picked = signal<number | null>(null);

export function AskPanel() {
  const cell = asked.value;
  const shown = trace.value;
  const heading = useRef<HTMLHeadingElement>(null);
  const filled = shown && cell !== null ? filledAt(shown, image.value, step.value) : null;
  const isRead = filled !== null && filled.rank[cell!]! >= 0;
  useAnswer(shown, isRead ? null : cell);

  useEffect(() => {
    if (cell === null) return;
    if (matchMedia(NARROW).matches) document.querySelector(".panel")?.scrollIntoView(); // above the panel
    heading.current?.focus({ preventScroll: true });
    const onKeyDown = (event: KeyboardEvent) => event.key === "Escape" && close();
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, [cell]);

  if (cell === null || !shown || !filled) return null;
  const [, columns] = gridOf(shown);
  return (
    <section class="ask" aria-labelledby="ask-title">
      <header>
        <h2 id="ask-title" ref={heading} tabIndex={-1}>
          Cell in row {Math.floor(cell / columns) + 1}, column {(cell % columns) + 1}
        </h2>
        <IconButton icon="close" label="Close" onClick={close} />
      </header>
      {isRead ? (
        <WasRead filledIn={filled.step[cell]!} />
      ) : problem.value ? (
        <Notice kind="problem">{problem.value}</Notice>
      ) : answer.value?.cell === cell ? (
        <Answer trace={shown} answer={answer.value} />
      ) : (
        <p class="quiet">Asking the model …</p>
      )}
    </section>
  );
}

function close(): void {
  asked.value = null;
  focusImage();
}

const focusImage = () => document.querySelector<HTMLElement>(".stage canvas.interactive")?.focus({ preventScroll: true });

/** Asks again whenever the cell, the image or the state changes; an answer that is overtaken is dropped. */
function useAnswer(shown: Trace | null, cell: number | null): void {
  const [at, index] = [step.value, image.value];
  useEffect(() => {
    if (!shown || cell === null) return;
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const request = cellRequest(shown, index, at, cell, TOP);
        const found = await askCell(request, abort.signal);
        if (abort.signal.aborted) return;
        problem.value = null;
        picked.value = null;
        answer.value = found;
      } catch (error) {
        if (!isAbort(error)) problem.value = (error as Error).message;
      }
    }, 120);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [shown?.id, index, at, cell]);
}

function WasRead({ filledIn }: { filledIn: number }) {
  if (filledIn < 0) return <p>This cell was given, so there is nothing to ask: it was not drawn.</p>;
  return (
    <>
      <p>It was filled in step {filledIn + 1}. Before that step it could still have become something else.</p>
      <button type="button" onClick={() => showStep(filledIn)}>
        Go back to before step {filledIn + 1}
      </button>
    </>
  );
}

function Answer({ trace, answer: found }: { trace: Trace; answer: CellAnswer }) {
  const { uncertainty_name: name } = found;
  const isVector = found.mean !== null;
  const choice = picked.value === null ? undefined : found.candidates[picked.value];
  const highest = Math.max(...found.candidates.map(({ probability }) => probability ?? 0), found.rest ?? 0, 1e-9);

  const pin = (event: Event) => {
    event.preventDefault();
    if (!choice) return;
    const at = step.peek();
    const [, columns] = gridOf(trace);
    const place = `${Math.floor(found.cell / columns) + 1},${(found.cell % columns) + 1}`;
    start(trace.model, pinRequest(trace, image.peek(), at, found.cell, choice.values), {
      trace: trace.id,
      image: image.peek(),
      step: at,
      how: `step ${at}, cell ${place} pinned`,
    });
    focusImage();
  };

  return (
    <form onSubmit={pin}>
      <p class="facts">
        {uncertaintyName(name)} {found.uncertainty.toFixed(2)} {unitOf(name)} before step {step.value + 1}. Around the outlined cell: what
        is believed.
      </p>
      <fieldset class={isVector ? "candidates draws" : "candidates"}>
        <legend class="unseen">What it could become</legend>
        {found.candidates.map((candidate, i) => (
          <label key={i} class="candidate">
            <input type="radio" name="candidate" checked={picked.value === i} onChange={() => (picked.value = i)} />
            <PatchView png={candidate.picture} offset={found.offset} factor={found.factor} label={named(candidate, i, isVector)} />
            {candidate.probability === null ? (
              <span>{named(candidate, i, isVector)}</span>
            ) : (
              <Bar name={named(candidate, i, isVector)} share={candidate.probability} highest={highest} />
            )}
          </label>
        ))}
        {found.rest !== null && (
          <div class="candidate rest">
            <span class="patch" aria-hidden="true">
              …
            </span>
            <Bar name="all others" share={found.rest} highest={highest} />
          </div>
        )}
      </fieldset>
      {found.mean && found.spread && <Channels mean={found.mean} spread={found.spread} />}
      <div class="pin">
        <button type="submit" class="primary" disabled={!choice}>
          <Icon name="pin" /> Pin and continue
        </button>
      </div>
    </form>
  );
}

function named({ values }: Candidate, i: number, isVector: boolean): string {
  if (isVector) return i === 0 ? "mean" : `draw ${i}`;
  return `code ${(values as number[])[0]}`;
}

function Bar({ name, share, highest }: { name: string; share: number; highest: number }) {
  return (
    <span class="probability">
      <span>{name}</span>
      <span class="number">{percent(share)}</span>
      <span class="bar" aria-hidden="true">
        <span style={{ width: `${(100 * share) / highest}%` }} />
      </span>
    </span>
  );
}

const percent = (share: number) => (share > 0 && share < 0.001 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`);

/** Mean and spread of a vector's channels: a dot and a bar of one spread on either side. */
function Channels({ mean, spread }: { mean: number[]; spread: number[] }) {
  const reach = Math.max(...mean.map((value, i) => Math.abs(value) + spread[i]!), 1e-9);
  const at = (value: number) => 50 + (50 * value) / reach;
  return (
    <table class="channels">
      <caption>Mean ± spread of each channel, from {(-reach).toFixed(2)} to {reach.toFixed(2)}</caption>
      <tbody>
        {mean.map((value, i) => (
          <tr key={i}>
            <th scope="row">{i}</th>
            <td>
              <span class="range" aria-hidden="true">
                <span style={{ left: `${at(value - spread[i]!)}%`, width: `${(100 * spread[i]!) / reach}%` }} />
                <i style={{ left: `${at(value)}%` }} />
              </span>
            </td>
            <td class="number">
              {value.toFixed(2)} ± {spread[i]!.toFixed(2)}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
