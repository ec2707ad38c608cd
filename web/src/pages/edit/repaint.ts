/** Sends an image with its mask or its canvas, and follows the result. */

import { batch, signal } from "@preact/signals";
import type { ImageRequest } from "../../api/client";
import { outsideMask } from "../../logic/outpaint";
import { inpaintRequest, outpaintRequest, type Source, type Wish } from "../../logic/repaint";
import { labelOf, type Settings, toSampling } from "../../logic/settings";
import type { Trace } from "../../logic/trace";
import { keepPixels, mask, mode, placement, refused, result, resultIndex, source } from "../../store/editing";
import { Generation } from "../../store/generation";
import { maskPng, placedPng } from "../../ui/pictures";

/** Why the browser could not put the pixels together. */
export const composeProblem = signal<string | null>(null);

/** Draws what the mask or the canvas asks for. */
export async function repaint(image: Source, settings: Settings): Promise<void> {
  const wish: Wish = {
    label: labelOf(settings),
    count: Number(settings.count),
    seed: Number(settings.seed),
    sampling: toSampling(settings),
  };
  composeProblem.value = null;
  let request: ImageRequest;
  try {
    request = mode.peek() === "in" ? await inpaint(image, wish) : await outpaint(image, wish);
  } catch (error) {
    composeProblem.value = (error as Error).message;
    return;
  }
  if (source.peek() !== image) return; // another image came while the pixels were put together
  const [before, index] = [result.peek(), resultIndex.peek()];
  before?.stop();
  const generation = new Generation(image.model, request);
  const show = (shown: Generation | null, at: number, problem: Trace | null) =>
    batch(() => {
      result.value = shown;
      resultIndex.value = at;
      refused.value = problem;
    });
  show(generation, 0, null);
  await generation.run();
  if (generation.isRefused && result.peek() === generation) show(before, index, generation.trace.peek());
}

async function inpaint(image: Source, wish: Wish): Promise<ImageRequest> {
  const request = inpaintRequest(image, mask.peek(), wish);
  if (!keepPixels.peek()) return request;
  return { ...request, composite: { image: image.picture, mask: await maskPng(mask.peek()) } };
}

async function outpaint(image: Source, wish: Wish): Promise<ImageRequest> {
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
