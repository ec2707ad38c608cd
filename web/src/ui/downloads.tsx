/** Saves a finished image, and the record that makes it again. */

import type { Trace } from "../logic/trace";
import { Icon } from "./icons";
import { save, saveJson, toBlob } from "./pictures";

export function Downloads({ trace, index }: { trace: Trace | null; index: number }) {
  const finished = trace?.done?.images[index];
  const name = finished ? fileName(trace, finished.seed) : "";
  const why = finished ? "" : "Once the image is finished";
  return (
    <>
      <button type="button" disabled={!finished} title={why} onClick={() => save(toBlob(finished!.picture), `${name}.png`)}>
        <Icon name="download" /> PNG
      </button>
      <button
        type="button"
        disabled={!finished}
        title={why || "Makes the same image again: heptapod sample --from FILE.json"}
        onClick={() => saveJson(finished!.record, `${name}.json`)}
      >
        <Icon name="download" /> JSON
      </button>
    </>
  );
}

/** Names a file after the model, the class and the seed. */
export function fileName(trace: Trace, seed: number): string {
  const { label } = trace.request;
  const className = typeof label === "number" ? trace.model.class_names[label] : null;
  return ["heptapod", trace.model.name, className, seed]
    .filter((part) => part != null)
    .join("-")
    .replaceAll(/[^\w.-]+/g, "_");
}
