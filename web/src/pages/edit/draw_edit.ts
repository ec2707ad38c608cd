/** Draws an image under its mask, and an image on its canvas. Sizes on screen are in device pixels. */

import type { Size } from "../../api/types";
import type { Mask } from "../../logic/mask";
import type { Placement } from "../../logic/outpaint";
import { drawBitmap, type Inks } from "../../ui/draw";

export type Point = [y: number, x: number];

export interface MaskView {
  bitmap: ImageBitmap | null;
  mask: Mask;
  /** Per cell: whether the mask touches it. */
  touched: boolean[];
  factor: number;
  /** Where the brush is, in pixels of the image. */
  cursor: Point | null;
  radius: number;
  /** The other corner of a rectangle that is being drawn. */
  corner: Point | null;
  /** Whether the brush is a rectangle's corner. */
  isRectangle: boolean;
}

export function drawMask(context: CanvasRenderingContext2D, view: MaskView, inks: Inks, unit: number): void {
  const { width, height } = context.canvas;
  const { mask, touched, factor } = view;
  const scale = width / mask.width;
  context.clearRect(0, 0, width, height);
  if (view.bitmap) drawBitmap(context, view.bitmap);
  context.save();
  context.globalAlpha = 0.62;
  context.imageSmoothingEnabled = false;
  context.drawImage(maskPixels(mask, inks.accent), 0, 0, width, height);
  context.restore();
  context.strokeStyle = inks.accent;
  context.lineWidth = unit;
  touched.forEach((isTouched, cell) => {
    const columns = mask.width / factor;
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const side = factor * scale;
    if (isTouched) context.strokeRect(column * side + unit / 2, row * side + unit / 2, side - unit, side - unit);
  });
  if (view.cursor) drawBrush(context, view, scale, unit);
}

/** The mask drawn last: the brush moves over it more often than it changes. */
let drawn: { mask: Mask; color: string; canvas: HTMLCanvasElement } | null = null;

function maskPixels(mask: Mask, color: string): HTMLCanvasElement {
  if (drawn?.mask === mask && drawn.color === color) return drawn.canvas;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: mask.width, height: mask.height });
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(mask.width, mask.height);
  for (let at = 0; at < mask.data.length; at++) image.data[at * 4 + 3] = 255 * mask.data[at]!;
  context.putImageData(image, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = color;
  context.fillRect(0, 0, mask.width, mask.height);
  drawn = { mask, color, canvas };
  return canvas;
}

/** White on black, so that it shows on anything. */
function drawBrush(context: CanvasRenderingContext2D, view: MaskView, scale: number, unit: number): void {
  const [y, x] = view.cursor!;
  const path = new Path2D();
  if (view.corner) {
    const [top, left] = view.corner;
    path.rect(left * scale, top * scale, (x - left) * scale, (y - top) * scale);
  } else if (view.isRectangle) {
    const arm = 8 * unit;
    path.moveTo(x * scale - arm, y * scale);
    path.lineTo(x * scale + arm, y * scale);
    path.moveTo(x * scale, y * scale - arm);
    path.lineTo(x * scale, y * scale + arm);
  } else path.arc(x * scale, y * scale, Math.max(view.radius * scale, 3 * unit), 0, 2 * Math.PI);
  for (const [color, thickness] of [["#000", 3], ["#fff", 1.5]] as const) {
    context.strokeStyle = color;
    context.lineWidth = thickness * unit;
    context.stroke(path);
  }
}

export function drawPlacement(
  context: CanvasRenderingContext2D,
  bitmap: ImageBitmap | null,
  place: Placement,
  [imageHeight, imageWidth]: Size,
  factor: number,
  inks: Inks,
  unit: number,
): void {
  const { width, height } = context.canvas;
  const scale = width / place.width;
  context.fillStyle = inks.cover;
  context.fillRect(0, 0, width, height);
  context.fillStyle = inks.line;
  const side = factor * scale;
  for (let x = side; x < width - 1; x += side) context.fillRect(Math.round(x), 0, unit, height);
  for (let y = side; y < height - 1; y += side) context.fillRect(0, Math.round(y), width, unit);
  const box = [place.left, place.top, imageWidth, imageHeight].map((length) => Math.round(length * scale));
  const [x, y, w, h] = box as [number, number, number, number];
  context.imageSmoothingEnabled = false;
  if (bitmap) context.drawImage(bitmap, x, y, w, h);
  context.strokeStyle = inks.accent;
  context.lineWidth = 2 * unit;
  context.strokeRect(x - unit, y - unit, w + 2 * unit, h + 2 * unit);
  const grip = 14 * unit;
  context.fillStyle = inks.accent;
  context.beginPath();
  context.moveTo(width, height - grip);
  context.lineTo(width, height);
  context.lineTo(width - grip, height);
  context.fill();
}
