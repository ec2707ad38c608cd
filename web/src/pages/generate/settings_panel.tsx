/** What is to be drawn, and the button that draws it. */

import { useEffect, useRef } from "preact/hooks";
import type { Limits, ModelInfo } from "../../api/types";
import { problemsBySetting } from "../../logic/problems";
import { cellsOf, labelOf, mostImages, toSampling } from "../../logic/settings";
import { generations, refused, start, stop, trace } from "../../store/stage";
import type { Form } from "../../store/form";
import { NARROW } from "../../ui/canvas";
import { ClassPicker } from "../../ui/class_picker";
import { reveal } from "../../ui/details";
import { NumberField, SeedField } from "../../ui/fields";
import { Icon } from "../../ui/icons";
import { ModelFacts } from "../../ui/model_facts";
import { SamplingFields } from "../../ui/sampling_fields";
import { Status } from "../../ui/status";

interface Props {
  form: Form;
  model: ModelInfo;
  limits: Limits;
}

export function SettingsPanel({ form, model, limits }: Props) {
  const settings = form.settings.value;
  const button = useRef<HTMLButtonElement>(null);
  const active = generations.value.some((generation) => generation.isActive);
  const shown = refused.value ?? trace.value;
  const problems = problemsBySetting(shown, model, settings);
  const set = (name: "count" | "seed") => (value: string) => form.set(name, value);

  useEffect(() => button.current?.focus({ preventScroll: true }), []);

  const submit = (event: Event) => {
    event.preventDefault();
    const sampling = toSampling(settings);
    start(model, {
      model: model.name,
      label: labelOf(settings),
      count: Number(settings.count),
      seed: Number(settings.seed),
      sampling,
    });
    if (matchMedia(NARROW).matches) document.querySelector(".stage")?.scrollIntoView();
  };

  return (
    <form class="settings" onSubmit={submit} onInvalidCapture={reveal} aria-label="Settings">
      <ModelFacts model={model} />
      <ClassPicker model={model} value={settings.label} onChange={(value) => form.set("label", value)} />
      <div class="fields">
        <NumberField
          label="Count"
          value={settings.count}
          onChange={set("count")}
          min={1}
          max={mostImages(cellsOf(model), limits)}
          step={1}
          required
          problem={problems.count}
        />
        <SeedField label="Seed" value={settings.seed} onChange={set("seed")} problem={problems.seed} />
        <SamplingFields key={model.name} {...{ form, model, limits, problems }} cells={cellsOf(model)} />
      </div>
      <div class="go">
        <button ref={button} type="submit" class="primary">
          Generate
        </button>
        {active && (
          <button type="button" onClick={stop}>
            <Icon name="stop" /> Stop
          </button>
        )}
        <Status trace={shown} />
      </div>
      <p class="keys">
        <kbd>←</kbd> <kbd>→</kbd> step, <kbd>Space</kbd> plays; in a map the arrows choose a cell and <kbd>Enter</kbd> asks it.
      </p>
    </form>
  );
}
