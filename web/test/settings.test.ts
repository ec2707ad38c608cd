import { describe, expect, it } from "vitest";
import { time } from "../src/logic/color";
import { aligned, axisLabels, goal, positive, qualityLines, toFigures } from "../src/logic/curves";
import { defaultOf, differences, fromQuery, initialSettings, mostImages, toQuery, toSampling } from "../src/logic/settings";
import { model } from "./traces";

describe("settings", () => {
  const start = initialSettings(model);

  it("send what was given only", () => {
    expect(toSampling(start)).toEqual({});
    expect(toSampling({ ...start, steps: "8", temperature: "0", schedule: "1, 2,3", token_order: "random" })).toEqual({
      steps: 8,
      temperature: 0,
      schedule: [1, 2, 3],
      token_order: "random",
    });
    expect(toSampling({ ...start, schedule: "constant" }).schedule).toBe("constant");
  });

  it("survive the address", () => {
    const changed = { ...start, label: "", seed: "7", steps: "8" };
    const query = new URLSearchParams(toQuery(changed, start, "b."));
    expect(query.toString()).toBe("b.label=&b.seed=7&b.steps=8");
    expect(fromQuery(query, start, "b.")).toEqual(changed);
  });

  it("differ in how they sample, not in what", () => {
    expect([...differences(start, { ...start, seed: "9", steps: "8" })]).toEqual(["steps"]);
  });

  it("allow fewer images of more cells", () => {
    const limits = { count: 4, cells: 320, steps: 64, cell_steps: 1000, side: 64, upload_bytes: 1, upload_pixels: 1, waiting: 1 };
    expect([20, 100, 400].map((cells) => mostImages(cells, limits))).toEqual([4, 3, 1]);
  });

  it("say what a model does by itself", () => {
    expect(["steps", "token_order", "top_k", "schedule"].map((name) => defaultOf(model, name as "steps"))).toEqual([
      "6",
      "raster",
      "off",
      "cosine",
    ]);
  });
});

describe("charts", () => {
  it("have training and held-out values of one figure together, the loss first", () => {
    const curve = (name: string) => ({ name, steps: [1], values: [2] });
    const figures = toFigures(["lr", "val_psnr", "val_loss", "loss"].map(curve));
    expect(figures.map(({ name, lines }) => [name, ...lines.map((line) => line.name)])).toEqual([
      ["loss", "held out", "training"],
      ["psnr", "held out"],
      ["lr", "training"],
    ]);
  });

  it("share their steps", () => {
    expect(aligned([{ xs: [1, 3], ys: [10, 30] }, { xs: [2, 3], ys: [5, 6] }])).toEqual([[1, 2, 3], [10, null, 30], [null, 5, 6]]);
  });

  it("say which way is better", () => {
    expect(["kernel_distance[x]", "val_loss", "classifier_score", "lr"].map(goal)).toEqual([
      "lower is better",
      "lower is better",
      "higher is better",
      "",
    ]);
  });

  it("leave out what a logarithmic axis cannot show", () => {
    expect(positive([1, 0, -2, NaN])).toEqual([1, null, null, null]);
  });

  it("have as many decimals along an axis as one label needs", () => {
    expect(axisLabels([2, 2.5, 3])).toEqual(["2.0", "2.5", "3.0"]);
    expect(axisLabels([0, 100, null])).toEqual(["0", "100", ""]);
    expect(axisLabels([0, 1e-5])).toEqual(["0", "1.00e-5"]);
  });

  it("have a line for each order, and for what else differs", () => {
    const one = { name: "x", token_order: "raster", temperature: 1, count: 100, evaluator: "e", reference: "r" };
    const evaluations = [
      { ...one, steps: null, metrics: { d: 1 } },
      { ...one, steps: 2, metrics: { d: 2 } },
      { ...one, steps: 2, temperature: 0.5, metrics: { d: 3 } },
      { ...one, steps: 4, metrics: { other: 1 } },
    ];
    expect(qualityLines(evaluations, "d", 6)).toEqual([
      { name: "raster, temperature 1", xs: [2, 6], ys: [2, 1] },
      { name: "raster, temperature 0.5", xs: [2], ys: [3] },
    ]);
  });
});

it("numbers can be read on every color of the fill order", () => {
  const luminance = (color: number[]) => {
    const [red, green, blue] = color.map((value) => (value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
  };
  for (let share = 0; share <= 1; share += 0.01) {
    const { fill, ink } = time(share);
    const ground = luminance(fill.match(/\d+/g)!.map(Number));
    const contrast = ink === "#000000" ? (ground + 0.05) / 0.05 : 1.05 / (ground + 0.05);
    expect(contrast, `at ${share}`).toBeGreaterThan(4.5);
  }
});
