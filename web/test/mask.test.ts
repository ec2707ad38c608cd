import { describe, expect, it } from "vitest";
import { emptyMask, invertMask, keptCells, type Mask, paintDisc, paintRectangle, paintStroke, touchedCells } from "../src/logic/mask";

const countPixels = (mask: Mask) => mask.data.reduce((sum, pixel) => sum + pixel, 0);

describe("the cells that stay", () => {
  it("are those without a pixel to repaint", () => {
    const mask = emptyMask([8, 12]);
    mask.data[3 * 12 + 4] = 1; // the last row of cell 1
    mask.data[4 * 12 + 11] = 1; // the first row of cell 5
    expect(touchedCells(mask, 4)).toEqual([false, true, false, false, false, true]);
    expect(keptCells(mask, 4)).toEqual([0, 2, 3, 4]);
  });

  it("are all of an empty mask and none of its inverse", () => {
    const mask = emptyMask([8, 12]);
    expect(keptCells(mask, 4)).toHaveLength(6);
    expect(keptCells(invertMask(mask), 4)).toEqual([]);
  });
});

describe("the brush", () => {
  it("sets the pixels whose center it covers, and erases them again", () => {
    const mask = emptyMask([5, 5]);
    paintDisc(mask, 2.5, 2.5, 1, 1);
    expect(countPixels(mask)).toBe(5);
    paintDisc(mask, 2.5, 2.5, 0.5, 0);
    expect(countPixels(mask)).toBe(4);
  });

  it("leaves no gap in a fast stroke, and stays on the image", () => {
    const mask = emptyMask([4, 20]);
    paintStroke(mask, [1.5, -5], [1.5, 30], 1, 1);
    expect([...mask.data.subarray(20, 40)]).toEqual(new Array(20).fill(1));
    expect(countPixels({ ...mask, data: mask.data.subarray(60, 80) })).toBe(0);
  });

  it("draws rectangles between any two corners", () => {
    const mask = emptyMask([4, 4]);
    paintRectangle(mask, [2.9, 3.2], [1.1, 2.5], 1);
    expect([...mask.data]).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]);
    paintRectangle(mask, [-9, -9], [99, 99], 0);
    expect(countPixels(mask)).toBe(0);
  });
});
