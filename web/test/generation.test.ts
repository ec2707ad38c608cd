import { afterEach, describe, expect, it, vi } from "vitest";
import { current, generations, refused, show, showStep, start, step, stop } from "../src/store/stage";
import { model, trace } from "./traces";

const LOST = "The connection to the server was lost before the image was complete.";
const event = (name: string, data: unknown) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;

/** A server that answers with these parts, then breaks the connection, ends the answer, or goes on for ever. */
function serverSends(parts: string[], then: "breaks" | "ends" | "goes on"): void {
  vi.stubGlobal("fetch", async (_: string, { signal }: RequestInit) => {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const part of parts) controller.enqueue(new TextEncoder().encode(part));
        signal!.addEventListener("abort", () => controller.error(signal!.reason));
      },
      pull(controller) {
        if (then === "breaks") controller.error(new TypeError("network error"));
        if (then === "ends") controller.close();
      },
    });
    return new Response(body);
  });
}

/** What became of a request. */
async function outcome() {
  const { trace: followed } = start(model, trace.request);
  await vi.waitUntil(() => !["waiting", "running"].includes(followed.value.status), { interval: 1 });
  return followed.value;
}

afterEach(() => vi.unstubAllGlobals());

describe("a request that goes wrong", () => {
  it("keeps what has come and says in words that the connection was lost", async () => {
    serverSends([event("started", trace.started), event("step", trace.states[0])], "breaks");
    expect(await outcome()).toMatchObject({ status: "failed", problem: LOST, states: [{ step: 0 }] });
  });

  it("says so where the answer ends too early, or the server tells why", async () => {
    serverSends([event("started", trace.started)], "ends");
    expect((await outcome()).problem).toBe("The server ended the answer before it was complete.");
    serverSends([event("failed", { detail: "out of memory" })], "ends");
    expect(await outcome()).toMatchObject({ status: "failed", problem: "out of memory" });
  });

  it.each([
    [401, "{}", /wants a token/],
    [429, '{"detail": "32 requests are waiting already"}', /^32 requests are waiting already$/],
    [500, "Internal Server Error", /^The server answered 500/],
  ])("has words for status %i", async (status, body, words) => {
    vi.stubGlobal("fetch", async () => new Response(body, { status }));
    expect((await outcome()).problem).toMatch(words);
  });
});

it("whatever is started stops all that is still drawn", async () => {
  serverSends([event("started", trace.started)], "goes on");
  const first = start(model, trace.request);
  const second = start(model, trace.request);
  await vi.waitUntil(() => second.trace.value.status === "running", { interval: 1 });
  expect(first.trace.value.status).toBe("stopped");
  stop();
  await vi.waitUntil(() => generations.value.every((one) => !one.isActive), { interval: 1 });
  expect(second.trace.value).toMatchObject({ status: "stopped", problem: null });
});

it("a request that is not accepted leaves what was there before, and says why", async () => {
  serverSends([event("started", trace.started), ...trace.states.map((state) => event("step", state)), event("done", { images: [], seconds: 1 })], "ends");
  expect((await outcome()).status).toBe("done");
  const good = current.value;
  showStep(2);
  const kept = generations.value;
  vi.stubGlobal("fetch", async () => new Response('{"detail": "steps: 9 given"}', { status: 422 }));
  expect((await outcome()).problem).toBe("steps: 9 given");
  await vi.waitUntil(() => refused.value, { interval: 1 });
  expect(refused.value?.problem).toBe("steps: 9 given");
  expect(current.value).toBe(good);
  expect(step.value).toBe(2);
  expect(generations.value).toEqual(kept);
  show(good);
  expect(refused.value).toBeNull();
});
