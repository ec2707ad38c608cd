import { describe, expect, it } from "vitest";
import { centered, fitted, outsideMask, placedCells, suggested } from "../src/logic/outpaint";

const SIDE = 64;

describe("a canvas", () => {
  it("has sides that are multiples of the factor, and room for the image", () => {
    expect(fitted({ height: 29, width: 10, top: 3, left: 99 }, [8, 12], 4, SIDE)).toEqual({ height: 28, width: 12, top: 4, left: 0 });
    expect(fitted({ height: 999, width: 12, top: -5, left: 0 }, [8, 12], 4, 30)).toEqual({ height: 28, width: 12, top: 0, left: 0 });
  });

  it("is larger than the image at first, and the image in its middle", () => {
    expect(suggested([28, 28], 4, SIDE)).toEqual({ height: 44, width: 44, top: 8, left: 8 });
    expect(centered({ height: 16, width: 24, top: 0, left: 0 }, [8, 12], 4, SIDE)).toMatchObject({ top: 4, left: 4 });
  });
});

describe("an image on its canvas", () => {
  const place = { height: 12, width: 16, top: 4, left: 4 };

  it("covers the shifted cells", () => {
    expect(placedCells(place, [8, 12], 4)).toEqual([5, 6, 7, 9, 10, 11]);
  });

  it("leaves everything outside to be painted", () => {
    const mask = outsideMask(place, [8, 12]);
    expect(mask.data.filter(Boolean)).toHaveLength(12 * 16 - 8 * 12);
    expect(mask.data[4 * 16 + 4]).toBe(0);
    expect(mask.data[4 * 16 + 3]).toBe(1);
  });
});
