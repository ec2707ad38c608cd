/** Requests that repaint a part of an image, or what is around it. */

import type { ImageRequest } from "../api/client";
import type { ModelInfo, SamplingOptions, Size } from "../api/types";
import { keptCells, type Mask } from "./mask";
import { type Placement, placedCells } from "./outpaint";
import { type Token, toValues } from "./tokens";

/** An image to be edited. */
export interface Source {
  model: ModelInfo;
  size: Size;
  /** Of all cells, in raster order. */
  tokens: Token[];
  /** PNG, base64. */
  picture: string;
  /** What the tokenizer makes of an upload; null of an image that it has decoded anyway. */
  reconstruction: string | null;
  /** What was done to an upload. */
  converted: string[];
  /** The class that it was drawn as. */
  label: number | null;
  /** What it is called. */
  name: string;
}

export interface Wish {
  label: number | null;
  count: number;
  seed: number;
  sampling: SamplingOptions;
}

/** Why a number of cells cannot be repainted; null if they can. */
export function maskProblem(touched: number, cells: number): string | null {
  if (touched === 0) return "Brush over the part to repaint first.";
  if (touched === cells) return "Every cell is to be repainted, so nothing is kept. Erase a part of the mask.";
  return null;
}

export function inpaintRequest(source: Source, mask: Mask, wish: Wish): ImageRequest {
  const { model, size, tokens } = source;
  const cells = keptCells(mask, model.factor);
  return request(model, size, cells, cells.map((cell) => tokens[cell] as Token), wish);
}

export function outpaintRequest(source: Source, place: Placement, wish: Wish): ImageRequest {
  const { model, size, tokens } = source;
  return request(model, [place.height, place.width], placedCells(place, size, model.factor), tokens, wish);
}

function request(model: ModelInfo, size: Size, cells: number[], tokens: Token[], wish: Wish): ImageRequest {
  return { model: model.name, size, known: { cells, values: toValues(tokens, model.channels), in_order: false }, ...wish };
}
