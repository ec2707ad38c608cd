/** Edit: repaint a part of an image, continue it beyond its borders, change its class. */

import { useEffect } from "preact/hooks";
import type { GenerateRequest, ModelInfo, Served } from "../../api/types";
import { outsideMask } from "../../logic/outpaint";
import { problemsBySetting } from "../../logic/problems";
import { inpaintRequest, maskProblem, outpaintRequest, type Source, type Wish } from "../../logic/repaint";
import { labelOf, mostImages, toSampling } from "../../logic/settings";
import { keepPixels, mask, mode, placement, result, resultIndex, resultTrace, source } from "../../store/editing";
import { Form } from "../../store/form";
import { Generation } from "../../store/generation";
import { chosen } from "../../store/models";
import { ClassPicker } from "../../ui/class_picker";
import { CheckBox, NumberField, SeedField, Segments } from "../../ui/fields";
import { Icon } from "../../ui/icons";
import { maskPng, placedPng, toBlob } from "../../ui/pictures";
import { SamplingFields } from "../../ui/sampling_fields";
import { Status } from "../../ui/status";
import { CanvasEditor } from "./canvas_editor";
import { MaskEditor } from "./mask_editor";
import { Result } from "./result";
import { CanvasTools, MaskTools } from "./tools";
import { Upload, upload, useDropAndPaste } from "./upload";

export const form = new Form("edit", chosen);

export function EditPage({ served }: { served: Served }) {
  const model = form.model.value;
  const over = useDropAndPaste(model);
  useEffect(() => {
    form.load();
    const label = source.peek()?.label;
    if (label != null) form.set("label", String(label));
  }, []);
  useEffect(() => {
    const now = source.peek(); // another model has other tokens for the same image
    if (model && now && now.model.name !== model.name) void upload(model, toBlob(now.picture), now.name);
  }, [model?.name]);
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
  const trace = resultTrace.value;
  const active = result.value?.isActive ?? false;
  const problems = problemsBySetting(trace?.problem ?? null);
  const limits = served.limits;
  const obstacle = !image ? "Open an image first." : mode.value === "in" ? maskProblem(mask.value, model.factor) : canvasProblem(image);
  const submit = (event: Event) => {
    event.preventDefault();
    if (image && !obstacle) void repaint(image);
  };
  return (
    <div class="side">
      <form class="settings" onSubmit={submit} aria-label="Settings">
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
        <ClassPicker model={model} value={settings.label} onChange={(value) => form.set("label", value)} />
        <div class="fields">
          <NumberField
            label="Count"
            value={settings.count}
            onChange={(value) => form.set("count", value)}
            min={1}
            max={mostImages(model, limits)}
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
          <details class="more" open={Object.keys(problems).length > 0}>
            <summary>Sampling</summary>
            <div class="fields">
              <SamplingFields {...{ form, model, limits, problems }} />
            </div>
          </details>
        </div>
        <div class="go">
          <button type="submit" class="primary" disabled={!!obstacle || active}>
            {mode.value === "in" ? "Repaint" : "Paint outside"}
          </button>
          {active && (
            <button type="button" onClick={() => result.peek()?.stop()}>
              <Icon name="stop" /> Stop
            </button>
          )}
          {obstacle ? <p class="quiet obstacle">{obstacle}</p> : <Status trace={trace} />}
        </div>
      </form>
    </div>
  );
}

function canvasProblem({ size }: Source): string | null {
  const { height, width } = placement.value;
  return height === size[0] && width === size[1] ? "The canvas is the image itself: make it larger." : null;
}

async function repaint(image: Source): Promise<void> {
  const settings = form.settings.peek();
  const wish: Wish = {
    label: labelOf(settings),
    count: Number(settings.count),
    seed: Number(settings.seed),
    sampling: toSampling(settings),
  };
  const request = mode.peek() === "in" ? await inpaint(image, wish) : await outpaint(image, wish);
  result.peek()?.stop();
  const generation = new Generation(image.model, request);
  resultIndex.value = 0;
  result.value = generation;
  void generation.run();
}

async function inpaint(image: Source, wish: Wish): Promise<GenerateRequest> {
  const request = inpaintRequest(image, mask.peek(), wish);
  if (!keepPixels.peek()) return request;
  return { ...request, composite: { image: image.picture, mask: await maskPng(mask.peek()) } };
}

async function outpaint(image: Source, wish: Wish): Promise<GenerateRequest> {
  const place = placement.peek();
  const request = outpaintRequest(image, place, wish);
  if (!keepPixels.peek()) return request;
  const { height, width, top, left } = place;
  return {
    ...request,
    composite: {
      image: await placedPng(image.picture, [height, width], [top, left]),
      mask: await maskPng(outsideMask(place, image.size)),
    },
  };
}

function Workbench({ source: image }: { source: Source }) {
  const isIn = mode.value === "in";
  const [height, width] = image.size;
  return (
    <div class="bench">
      <div class="work">
        <figure class="panel">
          <figcaption>
            <strong>{isIn ? "Brush over what is to be repainted" : "Place the image on its canvas"}</strong>
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
  if (!converted.length && !reconstruction) return null;
  return (
    <ul class="notes">
      {converted.map((note) => (
        <li key={note}>{note}</li>
      ))}
      {reconstruction && (
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
