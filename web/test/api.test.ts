import { describe, expect, it } from "vitest";
import { describeProblem } from "../src/api/client";
import { EventParser } from "../src/api/sse";
import { problemsBySetting, settingOf } from "../src/logic/problems";
import { EMPTY } from "../src/logic/settings";
import { model, trace } from "./traces";

describe("server-sent events", () => {
  it("may be cut anywhere", () => {
    const text = 'event: queued\ndata: {"ahead": 2}\n\n: comment\n\nevent: step\r\ndata: {"a":\r\ndata: 1}\r\n\r\n';
    for (const size of [1, 3, 7, text.length]) {
      const parser = new EventParser();
      const events = [];
      for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)));
      expect(events).toEqual([
        { event: "queued", data: '{"ahead": 2}' },
        { event: "step", data: '{"a":\n1}' },
      ]);
    }
  });
});

describe("problems", () => {
  it("are one line, whatever the server sends", () => {
    expect(describeProblem("steps: 99 given")).toBe("steps: 99 given");
    expect(describeProblem([{ loc: ["body", "sampling", "top_p"], msg: "too large" }, { msg: "no" }])).toBe("sampling.top_p: too large; no");
    expect(describeProblem(undefined)).toBeNull();
    const kinds = ["literal['cosine','constant']", "list[constrained-int]"].map((kind) => ({ loc: ["body", "sampling", "schedule", kind, 0] }));
    const wrong = [{ ...kinds[0], msg: "not a rule" }, { ...kinds[1], msg: "not above 0" }, { ...kinds[1], msg: "not above 0" }];
    expect(describeProblem(wrong)).toBe("sampling.schedule: not a rule, or not above 0");
  });

  it("are shown at the setting they name", () => {
    expect(settingOf("steps: 99 given, must be between 1 and 49")).toBe("steps");
    expect(settingOf("sampling.top_p: too large")).toBe("top_p");
    expect(settingOf("known: cells 3 twice")).toBeNull();
    expect(settingOf("The server does not answer.")).toBeNull();
  });

  it("stay at a setting for as long as it is the one that was refused", () => {
    const problem = "steps: 3 given, must be 2";
    const refused = { ...trace, problem };
    const settings = { ...EMPTY, steps: "3" };
    expect(problemsBySetting(refused, model, settings)).toEqual({ steps: problem });
    expect(problemsBySetting(refused, model, { ...settings, steps: "2" })).toEqual({});
    expect(problemsBySetting(refused, { ...model, name: "other" }, settings)).toEqual({});
    expect(problemsBySetting({ ...refused, origin: { trace: 1, image: 0, step: 1, name: "" } }, model, settings)).toEqual({});
    const seed = { ...trace, problem: "seed: 40 given" };
    expect(problemsBySetting(seed, model, { ...EMPTY, seed: "40" })).toEqual({ seed: "seed: 40 given" });
    expect(problemsBySetting(seed, model, EMPTY)).toEqual({});
  });
});
