/** What can be done with the state and the image shown. */

import { useState } from "preact/hooks";
import { forkRequest, placeOf, stepsLeft } from "../../logic/continue";
import { randomSeed } from "../../logic/settings";
import type { Trace } from "../../logic/trace";
import { editGenerated } from "../../store/editing";
import { model } from "../../store/models";
import { image, start, step, trace } from "../../store/stage";
import { Downloads } from "../../ui/downloads";
import { IconButton } from "../../ui/fields";
import { Icon } from "../../ui/icons";

export function Actions() {
  const shown = trace.value;
  return (
    <div class="actions">
      <Fork key={shown?.model.name} trace={shown} />
      <Finished trace={shown} />
    </div>
  );
}

const SAME = "same";

function Fork({ trace }: { trace: Trace | null }) {
  const [seed, setSeed] = useState(() => String(randomSeed()));
  const [label, setLabel] = useState(SAME);
  const at = step.value;
  const left = trace ? stepsLeft(trace, at) : [];
  const possible = left.length > 0 && trace!.states.length > at;
  const { class_names: classes = [], needs_label } = trace?.model ?? model.value ?? {};

  const submit = (event: Event) => {
    event.preventDefault();
    if (!trace || !possible) return;
    const chosen = label === SAME ? (trace.request.label ?? null) : label === "" ? null : Number(label);
    const otherClass = typeof chosen === "number" && label !== SAME ? `, ${classes[chosen]}` : "";
    start(trace.model, forkRequest(trace, image.value, at, Number(seed), chosen as number | null), {
      trace: trace.id,
      image: image.value,
      step: at,
      name: `${placeOf(trace, image.value, at)}, seed ${seed}${otherClass}`,
    });
    setSeed(String(randomSeed()));
    setLabel(SAME);
  };

  return (
    <form class="fork" onSubmit={submit} aria-label="Continue from here">
      <button type="submit" aria-disabled={!possible} title={possible ? "" : "Go back to a step before the last one"}>
        <Icon name="branch" /> Continue from here
      </button>
      <label class="inline">
        <span>seed</span>
        <span class="joined">
          <input
            type="number"
            aria-label="Seed to continue with"
            min={0}
            max={Number.MAX_SAFE_INTEGER}
            step={1}
            required
            value={seed}
            disabled={!trace}
            onInput={(event) => setSeed(event.currentTarget.value)}
          />
          <IconButton
            icon="dice"
            label="Another seed to continue with"
            onClick={() => setSeed(String(randomSeed()))}
            disabled={!trace}
          />
        </span>
      </label>
      {classes.length > 1 && (
        <label class="inline">
          <span>class</span>
          <select aria-label="Class to continue with" value={label} disabled={!trace} onChange={(event) => setLabel(event.currentTarget.value)}>
            <option value={SAME}>the same</option>
            {classes.map((name, i) => (
              <option key={i} value={String(i)}>
                {name}
              </option>
            ))}
            {!needs_label && <option value="">none</option>}
          </select>
        </label>
      )}
    </form>
  );
}

function Finished({ trace }: { trace: Trace | null }) {
  const finished = trace?.done?.images[image.value];
  return (
    <div class="downloads">
      <Downloads trace={trace} index={image.value} />
      <button
        type="button"
        disabled={!finished}
        title={finished ? "" : "Once the image is finished"}
        onClick={() => editGenerated(trace!, image.value)}
      >
        <Icon name="edit" /> Edit this
      </button>
    </div>
  );
}
