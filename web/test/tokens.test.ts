import { describe, expect, it } from "vitest";
import { base64FromFloats, floatsFromBase64, toTokens, toValues } from "../src/logic/tokens";

describe("vectors in base64", () => {
  it("are little-endian float32", () => {
    expect(base64FromFloats(Float32Array.of(1, -2))).toBe("AACAPwAAAMA=");
    expect([...floatsFromBase64("AACAPwAAAMA=")]).toEqual([1, -2]);
  });

  it("come back as they were, also when they are many", () => {
    const numbers = Float32Array.from({ length: 50_000 }, (_, i) => Math.fround(Math.sin(i) * 1e3));
    expect(floatsFromBase64(base64FromFloats(numbers))).toEqual(numbers);
  });
});

describe("tokens", () => {
  it("are codes as they are", () => {
    expect(toTokens([3, 1, 2], 0)).toEqual([3, 1, 2]);
    expect(toValues([3, 1, 2], 0)).toEqual([3, 1, 2]);
  });

  it("are vectors of so many channels", () => {
    const values = base64FromFloats(Float32Array.of(1, 2, 3, 4, 5, 6));
    const tokens = toTokens(values, 3) as Float32Array[];
    expect(tokens.map((token) => [...token])).toEqual([[1, 2, 3], [4, 5, 6]]);
    expect(toValues(tokens.toReversed(), 3)).toBe(base64FromFloats(Float32Array.of(4, 5, 6, 1, 2, 3)));
    expect(toTokens("", 3)).toEqual([]);
    expect(toValues([], 3)).toBe("");
  });

  it("refuse numbers that do not fit", () => {
    expect(() => toTokens(base64FromFloats(Float32Array.of(1, 2, 3)), 2)).toThrow(/3 numbers/);
  });
});
