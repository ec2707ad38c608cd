/** PNG files in base64: decoded, kept for a while, saved, composed. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Size } from "../api/types";
import { base64FromBytes } from "../logic/tokens";
import type { Mask } from "../logic/mask";

export function toBlob(png: string): Blob {
  return new Blob([Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}

interface Decoded {
  pixels: Promise<ImageBitmap>;
  /** 0 until it is decoded. */
  bytes: number;
  users: number;
}

/** Bytes of decoded pixels that are cached. */
const BYTES = 64e6;
const decoded = new Map<string, Decoded>();
let total = 0;

/** The pixels of a PNG, to be let go after use. */
function take(png: string): Decoded {
  const entry = decoded.get(png) ?? decode(png);
  entry.users++;
  decoded.delete(png);
  decoded.set(png, entry); // the last used is the last
  return entry;
}

function decode(png: string): Decoded {
  const entry: Decoded = { pixels: createImageBitmap(toBlob(png)), bytes: 0, users: 0 };
  entry.pixels.then(
    ({ width, height }) => (total += entry.bytes = 4 * width * height),
    () => decoded.delete(png),
  );
  return entry;
}

function letGo(entry: Decoded | null): void {
  if (entry) entry.users--;
  for (const [png, { pixels, bytes, users }] of decoded) {
    if (total <= BYTES) return;
    if (users || !bytes) continue;
    decoded.delete(png);
    total -= bytes;
    void pixels.then((bitmap) => bitmap.close());
  }
}

/** The pixels of a PNG once they are there; until then the last ones that are, so that something is seen of a fast stream. */
export function useBitmap(png: string | null): ImageBitmap | null {
  const [bitmap, setBitmap] = useState<ImageBitmap | null>(null);
  const asked = useRef(0);
  const shown = useRef<{ entry: Decoded | null; turn: number }>({ entry: null, turn: 0 });
  useEffect(() => {
    const entry = png === null ? null : take(png);
    const turn = ++asked.current;
    const show = (pixels: ImageBitmap | null) => {
      if (turn < shown.current.turn) return letGo(entry); // a newer one is shown, or nothing any more
      const before = shown.current.entry;
      shown.current = { entry, turn };
      setBitmap(pixels);
      letGo(before);
    };
    if (entry) void entry.pixels.then(show);
    else show(null);
  }, [png]);
  useEffect(
    () => () => {
      letGo(shown.current.entry);
      shown.current = { entry: null, turn: Infinity };
    },
    [],
  );
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

/** Gray of what an image does not cover, as in heptapod's own out-painting. */
export const OUTSIDE = "rgb(128 128 128)";

/** A picture at a place on a gray canvas. */
export async function placedPng(png: string, canvasSize: Size, [top, left]: [number, number]): Promise<string> {
  const [canvas, context] = canvasOf(canvasSize);
  context.fillStyle = OUTSIDE;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const entry = take(png);
  try {
    context.drawImage(await entry.pixels, left, top);
  } finally {
    letGo(entry);
  }
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
