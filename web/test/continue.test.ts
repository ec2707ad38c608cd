import { describe, expect, it } from "vitest";
import { cellRequest, forkRequest, pinRequest, placeOf, stepsLeft, withoutOne } from "../src/logic/continue";
import { trace } from "./traces";

describe("a fork", () => {
  it("keeps what was read, the pace and the settings, and takes another seed", () => {
    expect(forkRequest(trace, 0, 1, 99)).toEqual({
      model: "tiny",
      label: 1,
      count: 1,
      seed: 99,
      known: { cells: [5, 0], values: [3, 7], in_order: true },
      sampling: { temperature: 0.5, schedule: [2, 2] },
    });
  });

  it("may take another class, or none", () => {
    expect(forkRequest(trace, 0, 1, 99, 0).label).toBe(0);
    expect(forkRequest(trace, 0, 1, 99, null).label).toBeNull();
  });

  it("of a composite is about the whole image", () => {
    const composite = { image: "i", mask: "m" };
    expect(forkRequest({ ...trace, request: { ...trace.request, composite } }, 0, 1, 99)).not.toHaveProperty("composite");
  });

  it("says of which image it is", () => {
    expect(placeOf(trace, 1, 2)).toBe("step 2 of seed 41");
    expect(placeOf({ ...trace, request: { ...trace.request, count: 1 } }, 0, 2)).toBe("step 2");
  });

  it("has the steps that are left", () => {
    expect(stepsLeft(trace, 0)).toEqual([1, 2, 2]);
    expect(stepsLeft(trace, 3)).toEqual([]);
  });
});

describe("a pinned cell", () => {
  it("is read last, and the last step fills one cell fewer", () => {
    expect(pinRequest(trace, 1, 1, 3, [8])).toMatchObject({
      seed: 41,
      count: 1,
      known: { cells: [5, 4, 3], values: [3, 1, 8], in_order: true },
      sampling: { schedule: [2, 1] },
    });
  });

  it("drops a last step of one cell", () => {
    expect(withoutOne([2, 1])).toEqual([2]);
    expect(withoutOne([1])).toEqual([]);
    expect(withoutOne([])).toEqual([]);
  });

  it("that was the only one left needs no schedule", () => {
    const started = { ...trace.started!, steps: [1, 2, 1] };
    expect(pinRequest({ ...trace, started }, 0, 2, 3, [1]).sampling).toEqual({ temperature: 0.5 });
  });
});

it("a cell is asked about with what was read, at the image's own seed", () => {
  expect(cellRequest(trace, 1, 2, 2, 8)).toEqual({
    model: "tiny",
    label: 1,
    sampling: { temperature: 0.5 },
    known: { cells: [5, 4, 0, 1], values: [3, 1, 2, 3] },
    cell: 2,
    top: 8,
    seed: 41,
  });
});
