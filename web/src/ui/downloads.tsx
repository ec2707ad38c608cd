/** Saves a finished image, and the record that makes it again. */

import type { FinishedImage } from "../api/types";
import type { Trace } from "../logic/trace";
import { Icon } from "./icons";
import { save, saveJson, toBlob } from "./pictures";

interface Props {
  trace: Trace | null;
  index: number;
  /** Whose files, where there are several. */
  of?: string;
}

export function Downloads({ trace, index, of }: Props) {
  const finished = trace?.done?.images[index];
  const name = finished ? fileName(trace, finished) : "";
  const named = (kind: string) => (of ? { "aria-label": `${kind} of ${of}` } : {});
  const why = finished ? "" : "Once the image is finished";
  return (
    <>
      <button
        type="button"
        disabled={!finished}
        title={why}
        {...named("PNG")}
        onClick={() => save(toBlob(finished!.picture), `${name}.png`)}
      >
        <Icon name="download" /> PNG
      </button>
      <button
        type="button"
        disabled={!finished}
        {...named("JSON")}
        title={why || "Generates the same image again: heptapod sample --from FILE.json"}
        onClick={() => saveJson(finished!.record, `${name}.json`)}
      >
        <Icon name="download" /> JSON
      </button>
    </>
  );
}

/** Names a file after the model, the class and the seed, and by its record where a part of the image was given. */
export function fileName(trace: Trace, { seed, record }: FinishedImage): string {
  const { label, known } = trace.request;
  const className = typeof label === "number" ? trace.model.class_names[label] : null;
  return ["heptapod", trace.model.name, className, seed, known ? shortHash(JSON.stringify(record)) : null]
    .filter((part) => part != null)
    .join("-")
    .replaceAll(/[^\w.-]+/g, "_");
}

/** FNV-1a, eight hexadecimal digits. */
function shortHash(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}
