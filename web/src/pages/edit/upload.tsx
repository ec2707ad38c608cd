/** Uploads an image: by file, by drop, by paste. The server checks it and returns its tokens. */

import { computed, signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { encode } from "../../api/client";
import type { ModelInfo } from "../../api/types";
import type { Source } from "../../logic/repaint";
import { pendingUpload, resultTrace, setUpload, source, takeResult } from "../../store/editing";
import { served } from "../../store/models";
import { Notice, SelectField } from "../../ui/fields";
import { Icon } from "../../ui/icons";
import { toBlob } from "../../ui/pictures";

type Fit = "crop" | "keep";

const uploading = computed(() => pendingUpload.value !== null);
const uploadProblem = signal<string | null>(null);
const fit = signal<Fit>("crop");

/** Has an image read by a model; an answer that another upload has overtaken is dropped. */
async function upload(model: ModelInfo, file: Blob, name: string, again: Source | null = null): Promise<void> {
  const most = served.peek()?.limits.upload_bytes ?? Infinity;
  if (file.size > most) {
    uploadProblem.value = `${name}: ${megabytes(file.size)} MB, but this server takes at most ${megabytes(most)} MB.`;
    return;
  }
  const own = { model, file, name, again };
  pendingUpload.value = own;
  uploadProblem.value = null;
  try {
    const encoded = await encode(model.name, file, fit.peek());
    if (pendingUpload.peek() === own) setUpload(own, encoded);
  } catch (error) {
    if (pendingUpload.peek() === own) {
      pendingUpload.value = null;
      uploadProblem.value = (error as Error).message;
    }
  }
}

/** Works on with a result. Where it has pixels of the image before, the tokenizer is asked what it sees of them. */
export async function workOnWithResult(): Promise<void> {
  const isComposite = resultTrace.peek()?.request.composite !== undefined;
  takeResult();
  const image = source.peek();
  if (!isComposite || !image) return;
  try {
    const { reconstruction } = await encode(image.model.name, toBlob(image.picture), "keep");
    if (source.peek() === image) source.value = { ...image, reconstruction };
  } catch (error) {
    if (source.peek() === image) uploadProblem.value = (error as Error).message;
  }
}

/** Has the image, or the one on its way, read by the model that is chosen: another model has other tokens for it. */
export function useModelsTokens(model: ModelInfo | null): void {
  const now = source.value;
  useEffect(() => {
    const pending = pendingUpload.peek();
    if (!model) return;
    if (pending && !pending.again) {
      if (pending.model.name !== model.name) void upload(model, pending.file, pending.name);
    } else if (now?.model.name === model.name) pendingUpload.value = null;
    else if (now) void upload(model, toBlob(now.picture), now.name, now);
  }, [model?.name, now]);
}

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);

export function Upload({ model }: { model: ModelInfo }) {
  const input = useRef<HTMLInputElement>(null);
  const [height, width] = model.size;
  return (
    <div class="upload">
      <button type="button" onClick={() => input.current?.click()} disabled={uploading.value}>
        <Icon name="upload" /> {uploading.value ? "Reading …" : "Open image"}
      </button>
      <input
        ref={input}
        type="file"
        class="unseen"
        tabIndex={-1}
        aria-label="Image file"
        accept="image/png,image/jpeg,image/webp,image/gif,image/bmp,image/tiff"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          if (file) void upload(model, file, file.name);
          event.currentTarget.value = "";
        }}
      />
      <SelectField
        label="Size"
        value={fit.value}
        onChange={(value) => (fit.value = value as Fit)}
        options={[
          ["crop", `${height} × ${width}`],
          ["keep", "as it is"],
        ]}
      />
      {uploadProblem.value && (
        <div class="wide">
          <Notice kind="problem">{uploadProblem.value}</Notice>
        </div>
      )}
    </div>
  );
}

/** Images dropped on the page or pasted into it, and whether one is being dragged over it. */
export function useDropAndPaste(model: ModelInfo | null): boolean {
  const [over, setOver] = useState(false);
  useEffect(() => () => void (uploadProblem.value = null), []);
  useEffect(() => {
    if (!model) return;
    const take = (data: DataTransfer | null) => {
      const file = [...(data?.files ?? [])][0];
      if (file) void upload(model, file, file.name || "pasted image");
      return file !== undefined;
    };
    const listeners: [string, (event: Event) => void][] = [
      ["paste", (event) => take((event as ClipboardEvent).clipboardData) && event.preventDefault()],
      ["dragover", (event) => (event.preventDefault(), setOver(true))],
      ["dragleave", (event) => (event as DragEvent).relatedTarget === null && setOver(false)],
      [
        "drop",
        (event) => {
          event.preventDefault();
          setOver(false);
          if (!take((event as DragEvent).dataTransfer)) uploadProblem.value = "Only files can be dropped here.";
        },
      ],
    ];
    for (const [name, listener] of listeners) document.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of listeners) document.removeEventListener(name, listener);
    };
  }, [model?.name]);
  return over;
}
