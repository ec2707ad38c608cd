/** Compare: the same class and seeds, drawn by two models or with two settings. */

import { useEffect } from "preact/hooks";
import type { ModelInfo, Served } from "../../api/types";
import { cellsOf, defaultOf, differences, mostImages, type SettingName } from "../../logic/settings";
import { choose, forms, formA, formB, load, problem, run, runs, type Side, stop } from "../../store/comparing";
import { route } from "../../store/route";
import { ClassPicker } from "../../ui/class_picker";
import { reveal } from "../../ui/details";
import { Notice, NumberField, SeedField, SelectField } from "../../ui/fields";
import { Icon } from "../../ui/icons";
import { ModelFacts } from "../../ui/model_facts";
import { SamplingFields } from "../../ui/sampling_fields";
import { Pairs } from "./pairs";

export function ComparePage({ served }: { served: Served }) {
  const here = route.value;
  useEffect(load, [here]);
  const [a, b] = [formA.model.value, formB.model.value];
  if (!a || !b) return null;
  const changed = differences(formA.settings.value, formB.settings.value);
  return (
    <main class="compare">
      <h1 class="unseen">Compare</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          run();
        }}
        onInvalidCapture={reveal}
        aria-label="Settings"
      >
        <div class="sides">
          <Settings side="a" {...{ served, changed }} />
          <Settings side="b" {...{ served, changed }} />
        </div>
        <Shared model={a} served={served} />
        <p class="difference" role="status">
          {difference(a, b, changed)}
        </p>
      </form>
      {problem.value && <Notice kind="problem">{problem.value}</Notice>}
      <Pairs />
    </main>
  );
}

function Shared({ model, served }: { model: ModelInfo; served: Served }) {
  const settings = formA.settings.value;
  const active = runs.value !== null && (runs.value.a.isActive || runs.value.b.isActive);
  return (
    <div class="shared">
      <ClassPicker model={model} value={settings.label} onChange={(value) => formA.set("label", value)} label="Class of both" />
      <NumberField
        label="Count"
        value={settings.count}
        onChange={(value) => formA.set("count", value)}
        min={1}
        max={mostImages(cellsOf(model), served.limits)}
        step={1}
        required
      />
      <SeedField label="First seed" value={settings.seed} onChange={(value) => formA.set("seed", value)} />
      <button type="submit" class="primary">
        Generate both
      </button>
      {active && (
        <button type="button" onClick={stop}>
          <Icon name="stop" /> Stop
        </button>
      )}
    </div>
  );
}

function Settings({ side, served, changed }: { side: Side; served: Served; changed: ReadonlySet<SettingName> }) {
  const form = forms[side];
  const model = form.model.value!;
  const differ = formA.model.value !== formB.model.value;
  return (
    <div class={`side-settings ${side}`} role="group" aria-label={`Settings of ${side.toUpperCase()}`}>
      <header>
        <span class="badge">{side.toUpperCase()}</span>
        {served.models.length > 1 ? (
          <SelectField
            label="Model"
            value={model.name}
            onChange={(name) => choose(side, name)}
            changed={differ}
            options={served.models.map(({ name }) => [name, name])}
          />
        ) : (
          <b>{model.name}</b>
        )}
        <ModelFacts model={model} />
      </header>
      <div class="fields">
        <SamplingFields key={model.name} {...{ form, model, changed }} limits={served.limits} cells={cellsOf(model)} />
      </div>
    </div>
  );
}

/** In words: "They differ in steps: 49 and 8." */
function difference(a: ModelInfo, b: ModelInfo, changed: ReadonlySet<SettingName>): string {
  const value = (model: ModelInfo, side: Side, name: SettingName) => forms[side].settings.value[name] || defaultOf(model, name);
  const parts = [...changed].map((name) => `${name.replace("_", " ")}: ${value(a, "a", name)} and ${value(b, "b", name)}`);
  if (a !== b) parts.unshift(`model: ${a.name} and ${b.name}`);
  return parts.length ? `They differ in ${parts.join("; ")}.` : "A and B are set alike: change something in one of them.";
}
