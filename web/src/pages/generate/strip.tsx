/** The images of a request, and the requests so far with what was continued from what. */

import type { Trace } from "../../logic/trace";
import type { Generation } from "../../store/generation";
import { served } from "../../store/models";
import { current, generations, image, show, step, trace } from "../../store/stage";
import { seedOf, Thumb } from "../../ui/thumb";

export function Strip() {
  const shown = trace.value;
  const count = shown?.request.count ?? 0;
  return (
    <section aria-label="Images">
      <h2>Images</h2>
      <div class="thumbs" role="radiogroup" aria-label="Which image is shown">
        {Array.from({ length: count }, (_, i) => (
          <label key={i} class="thumb">
            <input type="radio" name="image" checked={i === image.value} onChange={() => (image.value = i)} />
            <Thumb trace={shown!} index={i} at={step.value} />
            <span>seed {seedOf(shown!, i)}</span>
          </label>
        ))}
        {!shown && <p class="quiet">The images of one request appear here, each with its own seed.</p>}
      </div>
    </section>
  );
}

export function History() {
  const all = generations.value;
  const known = new Set(all.map(({ id }) => id));
  const roots = all.filter(({ trace }) => !known.has(trace.value.origin?.trace ?? -1));
  return (
    <section class="history" aria-label="History">
      <h2>History</h2>
      {all.length ? (
        <Branches nodes={roots.toReversed()} />
      ) : (
        <p class="quiet">Generated images and their continuations stay here until you leave the page.</p>
      )}
    </section>
  );
}

function Branches({ nodes }: { nodes: Generation[] }) {
  return (
    <ul>
      {nodes.map((node) => {
        const children = generations.value.filter(({ trace }) => trace.value.origin?.trace === node.id);
        return (
          <li key={node.id}>
            <Entry node={node} />
            {children.length > 0 && <Branches nodes={children} />}
          </li>
        );
      })}
    </ul>
  );
}

function Entry({ node }: { node: Generation }) {
  const trace = node.trace.value;
  const isShown = current.value === node;
  return (
    <button type="button" class="entry" {...(isShown ? { "aria-current": "true" as const } : {})} onClick={() => show(node)}>
      <Thumb trace={trace} index={isShown ? image.value : node.image} at={trace.states.length} />
      <span>{trace.origin ? `from ${trace.origin.name}` : title(trace)}</span>
    </button>
  );
}

function title({ model, request }: Trace): string {
  const { label, seed, count } = request;
  const name = typeof label === "number" ? (model.class_names[label] ?? `class ${label}`) : "no class";
  const given = Object.entries(request.sampling).map(([setting, value]) => `, ${setting.replace("_", " ")} ${value}`);
  const of = (served.value?.models.length ?? 0) > 1 ? `${model.name}: ` : "";
  return `${of}${name}, ${count > 1 ? `seeds ${seed} to ${seed + count - 1}` : `seed ${seed}`}${given.join("")}`;
}
