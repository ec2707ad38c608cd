/** Edit: repaint a part of an image, continue it beyond its borders, change its class. */

import { useEffect } from "preact/hooks";
import type { ModelInfo, Served } from "../../api/types";
import { problemsBySetting } from "../../logic/problems";
import type { Source } from "../../logic/repaint";
import { cellsOf, mostImages } from "../../logic/settings";
import { canvasCells, cellsToFill, keepPixels, mode, obstacle, pendingLabel, refused, result, resultTrace, source } from "../../store/editing";
import { Form } from "../../store/form";
import { chosen } from "../../store/models";
import { route } from "../../store/route";
import { ClassPicker } from "../../ui/class_picker";
import { Details, reveal } from "../../ui/details";
import { CheckBox, Notice, NumberField, SeedField, Segments } from "../../ui/fields";
import { Icon } from "../../ui/icons";
import { SamplingFields } from "../../ui/sampling_fields";
import { Status } from "../../ui/status";
import { CanvasEditor } from "./canvas_editor";
import { MaskEditor } from "./mask_editor";
import { composeProblem, repaint } from "./repaint";
import { Result } from "./result";
import { CanvasTools, MaskTools } from "./tools";
import { Upload, useDropAndPaste, useModelsTokens } from "./upload";

export const form = new Form("edit", chosen);

export function EditPage({ served }: { served: Served }) {
  const model = form.model.value;
  const over = useDropAndPaste(model);
  const here = route.value;
  useEffect(() => {
    form.load();
    if (pendingLabel.peek() !== null) form.set("label", String(pendingLabel.peek()));
    pendingLabel.value = null;
  }, [here]);
  useModelsTokens(model);
  if (!model) return null;
  const image = source.value?.model.name === model.name ? source.value : null;
  return (
    <main class={`edit${over ? " over" : ""}`}>
      <h1 class="unseen">Edit</h1>
      <Settings {...{ model, served, image }} />
      <div class="stage">{image ? <Workbench source={image} /> : <NoImage model={model} />}</div>
    </main>
  );
}

function Settings({ model, served, image }: { model: ModelInfo; served: Served; image: Source | null }) {
  const settings = form.settings.value;
  const trace = refused.value ?? resultTrace.value;
  const active = result.value?.isActive ?? false;
  const problems = problemsBySetting(trace, model, settings);
  const limits = served.limits;
  const cells = image ? canvasCells.value : cellsOf(model);
  const unread = (image && cellsToFill.value) || cells;
  const submit = (event: Event) => {
    event.preventDefault();
    if (image && !obstacle.peek() && !active) void repaint(image, settings);
  };
  return (
    <div class="side">
      <form class="settings" onSubmit={submit} onInvalidCapture={reveal} aria-label="Settings">
        <Upload model={model} />
        <Segments
          label="What to paint"
          value={mode.value}
          options={[
            ["in", "In-paint"],
            ["out", "Out-paint"],
          ]}
          onChange={(value) => (mode.value = value)}
        />
        <ClassPicker
          model={model}
          value={settings.label}
          onChange={(value) => form.set("label", value)}
          label={image?.reconstruction ? "Class: what the image shows" : "Class"}
        />
        <div class="fields">
          <NumberField
            label="Count"
            value={settings.count}
            onChange={(value) => form.set("count", value)}
            min={1}
            max={mostImages(cells, limits)}
            step={1}
            required
            problem={problems.count}
          />
          <SeedField label="Seed" value={settings.seed} onChange={(value) => form.set("seed", value)} problem={problems.seed} />
          <div class="wide">
            <CheckBox
              label="Keep the original pixels where nothing is repainted"
              checked={keepPixels.value}
              onChange={(checked) => (keepPixels.value = checked)}
            />
          </div>
          <Details summary="Sampling" opens={Object.values(problems)[0] ?? false}>
            <SamplingFields key={model.name} {...{ form, model, limits, problems }} cells={unread} />
          </Details>
        </div>
        <div class="go">
          <button type="submit" class="primary" aria-disabled={!!obstacle.value || active}>
            {mode.value === "in" ? "Repaint" : "Paint outside"}
          </button>
          {active && (
            <button type="button" onClick={() => result.peek()?.stop()}>
              <Icon name="stop" /> Stop
            </button>
          )}
          {obstacle.value ? <p class="quiet obstacle">{obstacle}</p> : <Status trace={trace} />}
          {composeProblem.value && <Notice kind="problem">{composeProblem.value}</Notice>}
        </div>
      </form>
    </div>
  );
}

function Workbench({ source: image }: { source: Source }) {
  const isIn = mode.value === "in";
  const [height, width] = image.size;
  return (
    <div class="bench">
      <div class="work">
        <figure class="panel">
          <figcaption>
            <strong>{isIn ? "Brush over the part to repaint" : "Place the image on its canvas"}</strong>
            <span class="name">
              {image.name}, {height} × {width}
            </span>
          </figcaption>
          <div class="frame">{isIn ? <MaskEditor source={image} /> : <CanvasEditor source={image} />}</div>
        </figure>
        {isIn ? <MaskTools source={image} /> : <CanvasTools source={image} />}
        <Notes source={image} />
      </div>
      <Result source={image} />
    </div>
  );
}

function Notes({ source: { converted, reconstruction } }: { source: Source }) {
  const differs = reconstruction !== null && mode.value === "in";
  if (!converted.length && !differs) return null;
  return (
    <ul class="notes">
      {converted.map((note) => (
        <li key={note}>{note}</li>
      ))}
      {differs && (
        <li>
          The model sees the image through its tokenizer, which loses a little: “as the tokenizer sees it” shows what is left.
        </li>
      )}
    </ul>
  );
}

function NoImage({ model }: { model: ModelInfo }) {
  return (
    <div class="drop">
      <Icon name="upload" />
      <p>
        <b>Drop an image here</b>, paste one, or open a file.
      </p>
      <p class="quiet">
        Or draw one on <a href="#/generate">Generate</a> and choose “Edit this”. The model works on {model.size[0]} × {model.size[1]}{" "}
        pixels in cells of {model.factor} × {model.factor}.
      </p>
    </div>
  );
}
