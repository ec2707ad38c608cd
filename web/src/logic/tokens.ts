/** Tokens of cells: a code each, or a vector each. They travel as lists of codes, or as base64 of float32. */

import type { Values } from "../api/types";

export type Token = number | Float32Array;

/** The tokens in values of the API; `channels` is 0 for codes. */
export function toTokens(values: Values, channels: number): Token[] {
  if (typeof values !== "string") return values;
  const numbers = floatsFromBase64(values);
  if (channels < 1 || numbers.length % channels) {
    throw new Error(`${numbers.length} numbers are no vectors of ${channels} channels`);
  }
  return Array.from({ length: numbers.length / channels }, (_, i) => numbers.subarray(i * channels, (i + 1) * channels));
}

/** Values of the API from tokens; an empty list of vectors is the empty string. */
export function toValues(tokens: Token[], channels: number): Values {
  if (channels === 0) return tokens as number[];
  const numbers = new Float32Array(tokens.length * channels);
  tokens.forEach((token, i) => numbers.set(token as Float32Array, i * channels));
  return base64FromFloats(numbers);
}

export function floatsFromBase64(text: string): Float32Array {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(i * 4, true));
}

export function base64FromFloats(numbers: Float32Array): string {
  const view = new DataView(new ArrayBuffer(numbers.length * 4));
  numbers.forEach((number, i) => view.setFloat32(i * 4, number, true));
  return base64FromBytes(new Uint8Array(view.buffer));
}

export function base64FromBytes(bytes: Uint8Array): string {
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(text);
}
