/** An image on a larger canvas, everything outside to be painted. Pixels; sides and places are multiples of the factor. */

import type { Size } from "../api/types";
import { emptyMask, type Mask } from "./mask";

export interface Placement {
  /** Of the canvas. */
  height: number;
  width: number;
  /** Of the image on it. */
  top: number;
  left: number;
}

const round = (value: number, factor: number) => Math.round(value / factor) * factor;
const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high);

/** The nearest canvas and place that are possible: the image fits and everything is a multiple of the factor. */
export function fitted(wanted: Placement, image: Size, factor: number, side: number): Placement {
  const longest = Math.floor(side / factor) * factor;
  const height = clamp(round(wanted.height, factor), image[0], Math.max(longest, image[0]));
  const width = clamp(round(wanted.width, factor), image[1], Math.max(longest, image[1]));
  return {
    height,
    width,
    top: clamp(round(wanted.top, factor), 0, height - image[0]),
    left: clamp(round(wanted.left, factor), 0, width - image[1]),
  };
}

/** A canvas half as large again, the image in its middle. */
export function suggested(image: Size, factor: number, side: number): Placement {
  const [height, width] = image.map((length) => length + 2 * Math.max(factor, round(length / 4, factor))) as Size;
  return centered({ height, width, top: 0, left: 0 }, image, factor, side);
}

export function centered(canvas: Placement, image: Size, factor: number, side: number): Placement {
  const { height, width } = fitted(canvas, image, factor, side);
  const middle = (free: number) => Math.floor(free / 2 / factor) * factor;
  return { height, width, top: middle(height - image[0]), left: middle(width - image[1]) };
}

/** The canvas's cells that the image covers, in the image's raster order. */
export function placedCells(place: Placement, image: Size, factor: number): number[] {
  const columns = place.width / factor;
  const cells: number[] = [];
  for (let row = 0; row < image[0] / factor; row++) {
    for (let column = 0; column < image[1] / factor; column++) {
      cells.push((row + place.top / factor) * columns + column + place.left / factor);
    }
  }
  return cells;
}

/** Everything outside the image is to be painted. */
export function outsideMask(place: Placement, image: Size): Mask {
  const mask = emptyMask([place.height, place.width]);
  mask.data.fill(1);
  for (let row = place.top; row < place.top + image[0]; row++) {
    mask.data.fill(0, row * place.width + place.left, row * place.width + place.left + image[1]);
  }
  return mask;
}
