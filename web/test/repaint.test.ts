import { describe, expect, it } from "vitest";
import { emptyMask } from "../src/logic/mask";
import { inpaintRequest, maskProblem, outpaintRequest, type Source } from "../src/logic/repaint";
import { model } from "./traces";

const source: Source = {
  model,
  size: [8, 12],
  tokens: [0, 1, 2, 3, 4, 5],
  picture: "p",
  reconstruction: null,
  converted: [],
  label: null,
  name: "mine",
};
const wish = { label: 1, count: 2, seed: 3, sampling: {} };

describe("a request to repaint", () => {
  it("gives the cells that the mask leaves alone, to be read in the model's own order", () => {
    const mask = emptyMask([8, 12]);
    mask.data[5] = 1;
    expect(inpaintRequest(source, mask, wish)).toEqual({
      model: "tiny",
      size: [8, 12],
      known: { cells: [0, 2, 3, 4, 5], values: [0, 2, 3, 4, 5], in_order: false },
      ...wish,
    });
  });

  it("gives the image at its place on a canvas", () => {
    const { known, size } = outpaintRequest(source, { height: 12, width: 16, top: 4, left: 4 }, wish);
    expect(size).toEqual([12, 16]);
    expect(known).toEqual({ cells: [5, 6, 7, 9, 10, 11], values: [0, 1, 2, 3, 4, 5], in_order: false });
  });

  it("needs a cell to fill and one to keep", () => {
    expect([0, 3, 6].map((touched) => maskProblem(touched, 6)?.split(" ")[0])).toEqual(["Brush", undefined, "Every"]);
  });
});
