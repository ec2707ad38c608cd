/** A mask over the pixels of an image: 1 where it is to be repainted. */

import type { Size } from "../api/types";

export interface Mask {
  height: number;
  width: number;
  data: Uint8Array;
}

export const emptyMask = ([height, width]: Size): Mask => ({ height, width, data: new Uint8Array(height * width) });

export const copyMask = (mask: Mask): Mask => ({ ...mask, data: mask.data.slice() });

export function invertMask(mask: Mask): Mask {
  return { ...mask, data: mask.data.map((pixel) => 1 - pixel) };
}

/** Sets the pixels whose center is within a disc. */
export function paintDisc(mask: Mask, y: number, x: number, radius: number, value: 0 | 1): void {
  const limit = radius * radius;
  for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(mask.height - 1, Math.ceil(y + radius)); row++) {
    for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(mask.width - 1, Math.ceil(x + radius)); column++) {
      const [down, right] = [row + 0.5 - y, column + 0.5 - x];
      if (down * down + right * right <= limit) mask.data[row * mask.width + column] = value;
    }
  }
}

/** Sets a line of discs, so that a fast stroke leaves no gaps. */
export function paintStroke(mask: Mask, from: [number, number], to: [number, number], radius: number, value: 0 | 1): void {
  const [y, x] = from;
  const [down, right] = [to[0] - y, to[1] - x];
  const parts = Math.max(1, Math.ceil((Math.hypot(down, right) / Math.max(radius, 0.5)) * 2));
  for (let part = 0; part <= parts; part++) {
    paintDisc(mask, y + (down * part) / parts, x + (right * part) / parts, radius, value);
  }
}

/** Sets a rectangle between two corners, both included. */
export function paintRectangle(mask: Mask, from: [number, number], to: [number, number], value: 0 | 1): void {
  const clamp = (at: number, size: number) => Math.min(Math.max(Math.floor(at), 0), size - 1);
  const rows = [clamp(from[0], mask.height), clamp(to[0], mask.height)].sort((a, b) => a - b);
  const columns = [clamp(from[1], mask.width), clamp(to[1], mask.width)].sort((a, b) => a - b);
  for (let row = rows[0]!; row <= rows[1]!; row++) {
    mask.data.fill(value, row * mask.width + columns[0]!, row * mask.width + columns[1]! + 1);
  }
}

/** Per cell of factor × factor pixels: whether the mask touches it, so that it is resampled. */
export function touchedCells(mask: Mask, factor: number): boolean[] {
  const columns = mask.width / factor;
  const touched = new Array<boolean>((mask.height / factor) * columns).fill(false);
  for (let at = mask.data.indexOf(1); at >= 0; at = mask.data.indexOf(1, at)) {
    const [row, column] = [Math.floor(at / mask.width), at % mask.width];
    touched[Math.floor(row / factor) * columns + Math.floor(column / factor)] = true;
    at += factor - (column % factor); // on with the row's next cell
  }
  return touched;
}

/** The cells that stay, in raster order: those without a pixel to repaint. */
export function keptCells(mask: Mask, factor: number): number[] {
  return touchedCells(mask, factor).flatMap((touched, cell) => (touched ? [] : [cell]));
}
