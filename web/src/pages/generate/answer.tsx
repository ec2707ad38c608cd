/** What a cell could become: its candidates, one of which may be pinned. */

import { signal } from "@preact/signals";
import type { Candidate, CellAnswer } from "../../api/types";
import { pinRequest, placeOf } from "../../logic/continue";
import { gridOf, type Trace } from "../../logic/trace";
import { uncertaintyName, unitOf } from "../../logic/uncertainty";
import { image, start } from "../../store/stage";
import { Icon } from "../../ui/icons";
import { PatchView } from "../../ui/patch_view";
import { focusImage } from "./panels";

/** The candidate chosen among those shown. */
export const picked = signal<number | null>(null);

interface Props {
  trace: Trace;
  /** The state that was asked about. */
  at: number;
  answer: CellAnswer;
  /** Whether it is still about the state that is shown. */
  isFresh: boolean;
}

export function Answer({ trace, at, answer: found, isFresh }: Props) {
  const { uncertainty_name: name } = found;
  const isVector = found.mean !== null;
  const choice = picked.value === null ? undefined : found.candidates[picked.value];
  const temperature = trace.request.sampling.temperature ?? trace.model.sampling.temperature;
  const highest = Math.max(...found.candidates.map(({ probability }) => probability ?? 0), found.rest ?? 0, 1e-9);

  const pin = (event: Event) => {
    event.preventDefault();
    if (!choice || !isFresh) return;
    const [, columns] = gridOf(trace);
    const place = `${Math.floor(found.cell / columns) + 1},${(found.cell % columns) + 1}`;
    start(trace.model, pinRequest(trace, image.peek(), at, found.cell, choice.values), {
      trace: trace.id,
      image: image.peek(),
      step: at,
      name: `${placeOf(trace, image.peek(), at)}, cell ${place} pinned`,
      pinned: found.cell,
    });
    focusImage();
  };

  return (
    <form onSubmit={pin} aria-busy={!isFresh}>
      <p class="facts">
        {uncertaintyName(name)} {found.uncertainty.toFixed(2)} {unitOf(name)} before step {at + 1}
        {isVector || temperature === 1 ? "" : `, at temperature 1; the bars are at ${temperature}`}. Around the outlined cell: what
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
        <button type="submit" class="primary" disabled={!choice || !isFresh}>
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
