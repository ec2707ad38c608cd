/** PNG files in base64: decoded, kept for a while, saved, composed. */

import { useEffect, useState } from "preact/hooks";
import type { Size } from "../api/types";
import { base64FromBytes } from "../logic/tokens";
import type { Mask } from "../logic/mask";

export function toBlob(png: string): Blob {
  return new Blob([Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}

const KEPT = 256;
const decoded = new Map<string, Promise<ImageBitmap>>();

/** The pixels of a PNG; the last few are kept. */
export function decodePng(png: string): Promise<ImageBitmap> {
  let bitmap = decoded.get(png);
  decoded.delete(png);
  bitmap ??= createImageBitmap(toBlob(png));
  decoded.set(png, bitmap);
  if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value as string);
  return bitmap;
}

/** The pixels of a PNG once they are there; until then those shown before. */
export function useBitmap(png: string | null): ImageBitmap | null {
  const [bitmap, setBitmap] = useState<ImageBitmap | null>(null);
  useEffect(() => {
    let stale = false;
    if (png === null) setBitmap(null);
    else void decodePng(png).then((pixels) => !stale && setBitmap(pixels));
    return () => {
      stale = true;
    };
  }, [png]);
  return bitmap;
}

function canvasOf([height, width]: Size): [HTMLCanvasElement, CanvasRenderingContext2D] {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })!];
}

async function toPng(canvas: HTMLCanvasElement): Promise<string> {
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Error("The browser could not write a PNG of this size.");
  return base64FromBytes(new Uint8Array(await blob.arrayBuffer()));
}

/** A mask as a PNG: white where to repaint. */
export function maskPng(mask: Mask): Promise<string> {
  const [canvas, context] = canvasOf([mask.height, mask.width]);
  const image = context.createImageData(mask.width, mask.height);
  mask.data.forEach((pixel, at) => image.data.set(pixel ? [255, 255, 255, 255] : [0, 0, 0, 255], at * 4));
  context.putImageData(image, 0, 0);
  return toPng(canvas);
}

/** Grey of what an image does not cover, as in heptapod's own out-painting. */
export const OUTSIDE = "rgb(128 128 128)";

/** A picture at a place on a grey canvas. */
export async function placedPng(png: string, canvasSize: Size, [top, left]: [number, number]): Promise<string> {
  const [canvas, context] = canvasOf(canvasSize);
  context.fillStyle = OUTSIDE;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(await decodePng(png), left, top);
  return toPng(canvas);
}

export function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export const saveJson = (record: unknown, name: string) =>
  save(new Blob([`${JSON.stringify(record, null, 2)}\n`], { type: "application/json" }), name);
