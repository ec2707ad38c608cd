/** Fields of the sampling settings. Empty ones take the value that the model was saved with, shown in gray. */

import { useState } from "preact/hooks";
import type { Limits, ModelInfo } from "../api/types";
import type { Problems } from "../logic/problems";
import { defaultOf, type SettingName } from "../logic/settings";
import type { Form } from "../store/form";
import { Details } from "./details";
import { NumberField, type Option, SelectField, TextField } from "./fields";

interface Props {
  form: Form;
  model: ModelInfo;
  limits: Limits;
  /** How many are to be filled. */
  cells: number;
  /** What the server found wrong. */
  problems?: Problems;
  changed?: ReadonlySet<SettingName>;
}

const RULES = ["", "cosine", "constant"];
const UNDER_MORE: SettingName[] = ["top_k", "top_p", "preset", "cell_solver", "cell_steps"];
const NUMBERS = String.raw`\s*[1-9]\d*([\s,]+[1-9]\d*)*[\s,]*`;
const ORDERS = ["raster", "random", "spread", "spiral", "confidence"];

export function SamplingFields({ form, model, limits, cells, problems = {}, changed }: Props) {
  const settings = form.settings.value;
  const [emptied, setEmptied] = useState(false); // the list was deleted and is about to be typed again
  const bind = (name: SettingName) => ({
    value: settings[name],
    onChange: (value: string) => form.set(name, value),
    problem: problems[name],
    changed: changed?.has(name),
  });
  const number = (name: SettingName) => ({ ...bind(name), placeholder: defaultOf(model, name) });
  const defaultSchedule = defaultOf(model, "schedule");
  const listed = !RULES.includes(settings.schedule) || (emptied && settings.schedule === "");
  const setSchedule = (value: string, isEmptied: boolean) => {
    setEmptied(isEmptied);
    form.set("schedule", value);
  };
  const isUnderMore = UNDER_MORE.some((name) => settings[name] !== "");
  const problemUnderMore = UNDER_MORE.map((name) => problems[name]).find(Boolean);
  const reset = () => {
    setEmptied(false);
    form.reset();
  };
  return (
    <>
      <NumberField label="Steps" {...number("steps")} placeholder={defaultSteps(model, cells)} min={1} max={Math.min(limits.steps, cells)} step={1} />
      <SelectField label="Order" {...bind("token_order")} options={orderOptions(model)} />
      <NumberField label="Temperature" {...number("temperature")} min={0} step="any" />
      <SelectField
        label="Schedule"
        value={listed ? "list" : settings.schedule}
        onChange={(value) => setSchedule(value === "list" ? String(cells) : value, false)}
        problem={listed ? null : problems.schedule}
        changed={changed?.has("schedule")}
        options={[["", defaultSchedule], ...others(["cosine", "constant"], defaultSchedule), ["list", "custom list"]]}
      />
      {listed && (
        <TextField
          wide
          required
          pattern={NUMBERS}
          title="Numbers above 0 with commas between them"
          label="Cells per step"
          hint={`Cell counts with sum ${cells}, such as 1, 2, 4, …`}
          {...bind("schedule")}
          onChange={(value) => setSchedule(value, value === "")}
        />
      )}
      <Details summary="More" opens={problemUnderMore ?? isUnderMore}>
          {model.vocabulary_size > 0 ? (
            <>
              <NumberField label="Top k" {...number("top_k")} min={1} step={1} />
              <NumberField label="Top p" {...number("top_p")} min={0} max={1} step="any" />
            </>
          ) : (
            <>
              <SelectField label="Preset" {...bind("preset")} options={withDefault(model, "preset", ["default", "fast"])} />
              <SelectField
                label="Cell solver"
                {...bind("cell_solver")}
                options={withDefault(model, "cell_solver", ["multistep", "ancestral", "ddim", "euler", "heun"])}
              />
              <NumberField label="Cell steps" {...number("cell_steps")} min={1} max={limits.cell_steps} step={1} />
            </>
          )}
          <button type="button" class="quiet wide" onClick={reset}>
            Reset to the model’s defaults
          </button>
      </Details>
    </>
  );
}

/** The model's own number of steps, or as many as there are cells. */
const defaultSteps = (model: ModelInfo, cells: number) => String(Math.min(Number(model.sampling.steps ?? cells), cells));

const others = (values: string[], own: string): Option[] =>
  values.filter((value) => value !== own).map((value) => [value, value]);

function withDefault(model: ModelInfo, name: SettingName, values: string[]): Option[] {
  const own = defaultOf(model, name);
  return [["", own === "off" ? "by preset" : own], ...others(values, own)];
}

function orderOptions(model: ModelInfo): Option[] {
  const own = defaultOf(model, "token_order");
  const possible = ORDERS.filter((order) => order !== own && (order !== "confidence" || model.believes));
  const untrained = (order: string) => (model.token_orders.includes(order) ? order : `${order} (not trained)`);
  return [["", own], ...possible.map((order): Option => [order, untrained(order)])];
}
