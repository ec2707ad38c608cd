import { describe, expect, it } from "vitest";
import { believedAt, bytesOf, filledAt, finishedTokens, highestUncertainty, isComplete, pictureAt, readAt, thinned } from "../src/logic/trace";
import { trace } from "./traces";

describe("what was read at a state", () => {
  it("is what is known, then the cells of every step before, in reading order", () => {
    expect(readAt(trace, 0, 0)).toEqual({ cells: [5], tokens: [3] });
    expect(readAt(trace, 0, 2)).toEqual({ cells: [5, 0, 2, 1], tokens: [3, 7, 8, 9] });
    expect(readAt(trace, 1, 1)).toEqual({ cells: [5, 4], tokens: [3, 1] });
  });

  it("is the whole grid at the end, which has its tokens in raster order", () => {
    expect(readAt(trace, 0, 3).cells).toHaveLength(6);
    expect(finishedTokens(trace, 0)).toEqual([7, 9, 8, 5, 6, 3]);
    expect(isComplete(trace)).toBe(true);
    expect(isComplete({ ...trace, states: trace.states.slice(0, 3) })).toBe(false);
  });

  it("tells when each cell was filled", () => {
    const { rank, step, count } = filledAt(trace, 0, 2);
    expect([...rank]).toEqual([1, 3, 2, -1, -1, 0]);
    expect([...step]).toEqual([0, 1, 1, -1, -1, -1]);
    expect(count).toBe(4);
  });
});

describe("pictures", () => {
  it("of what is believed are never of a later state", () => {
    expect(believedAt(trace, 0, 1)).toMatchObject({ step: 0, state: { picture: "p0" } });
    expect(believedAt(trace, 0, 2)).toMatchObject({ step: 2 });
  });

  it("of what was read show the cells drawn since the last picture, once there is a later one", () => {
    expect(pictureAt(trace, 0, 1)).toBe("p2");
    expect(pictureAt({ ...trace, states: trace.states.slice(0, 2) }, 0, 1)).toBe("p0");
  });

  it("share one scale of uncertainty", () => {
    expect(highestUncertainty(trace, 0)).toBe(5);
    expect(highestUncertainty(trace, 1)).toBe(9);
  });

  it("may be thinned out, and what was read is still all there", () => {
    expect(bytesOf(trace)).toBe(2 * 3 * 2 + 8 * (6 * 4));
    const thin = thinned(trace, 2);
    expect(thin.states.map(({ images }) => images.map(({ picture }) => picture))).toEqual([["p0", "q0"], [null, null], [null, null], ["p3", "q3"]]);
    expect(bytesOf(thin)).toBeLessThan(bytesOf(trace));
    expect(readAt(thin, 1, 3)).toEqual(readAt(trace, 1, 3));
    expect(pictureAt(thin, 0, 2)).toBe("p3");
    expect(thinned(trace, 3)).toBe(trace);
  });
});
