/** Fields of the sampling settings. Empty ones take the value that the model was saved with, shown in grey. */

import type { Limits, ModelInfo } from "../api/types";
import { defaultOf, type SettingName } from "../logic/settings";
import type { Form } from "../store/form";
import { NumberField, type Option, SelectField, TextField } from "./fields";

interface Props {
  form: Form;
  model: ModelInfo;
  limits: Limits;
  /** What the server found wrong, by setting. */
  problems?: Partial<Record<SettingName, string>>;
  changed?: ReadonlySet<SettingName>;
}

const ORDERS = ["raster", "random", "spiral", "confidence"];

export function SamplingFields({ form, model, limits, problems = {}, changed }: Props) {
  const settings = form.settings.value;
  const cells = model.grid[0] * model.grid[1];
  const bind = (name: SettingName) => ({
    value: settings[name],
    onChange: (value: string) => form.set(name, value),
    problem: problems[name],
    changed: changed?.has(name),
  });
  const number = (name: SettingName) => ({ ...bind(name), placeholder: defaultOf(model, name) });
  const ownSchedule = defaultOf(model, "schedule");
  const listed = !["", "cosine", "constant"].includes(settings.schedule);
  const isOpen = ["top_k", "top_p", "schedule", "preset", "cell_solver", "cell_steps"].some(
    (name) => settings[name as SettingName] !== "" || problems[name as SettingName],
  );
  return (
    <>
      <NumberField label="Steps" {...number("steps")} min={1} max={Math.min(limits.steps, cells)} step={1} />
      <SelectField label="Order" {...bind("token_order")} options={orderOptions(model)} />
      <NumberField label="Temperature" {...number("temperature")} min={0} max={100} step="any" />
      <SelectField
        label="Schedule"
        value={listed ? "list" : settings.schedule}
        onChange={(value) => form.set("schedule", value === "list" ? String(cells) : value)}
        problem={listed ? null : problems.schedule}
        changed={changed?.has("schedule")}
        options={[["", ownSchedule], ...others(["cosine", "constant"], ownSchedule), ["list", "own numbers"]]}
      />
      {listed && (
        <TextField
          wide
          label="Cells per step"
          hint={`Numbers with sum ${cells}, such as 1, 2, 4, …`}
          {...bind("schedule")}
        />
      )}
      <details class="more" open={isOpen}>
        <summary>More</summary>
        <div class="fields">
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
                options={withDefault(model, "cell_solver", ["ancestral", "ddim", "euler", "heun"])}
              />
              <NumberField label="Cell steps" {...number("cell_steps")} min={1} max={1000} step={1} />
            </>
          )}
          <button type="button" class="quiet wide" onClick={() => form.reset()}>
            Back to the model’s own settings
          </button>
        </div>
      </details>
    </>
  );
}

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
