/** A request on its way: its trace grows as events come. */

import { batch, type Signal, signal } from "@preact/signals";
import { type GenerateEvent, generate, isAbort } from "../api/client";
import type { ImageRequest } from "../api/client";
import type { ModelInfo } from "../api/types";
import { type Origin, thinned, type Trace } from "../logic/trace";

let lastId = 0;

export class Generation {
  readonly trace: Signal<Trace>;
  /** The image of it that was looked at last. */
  image = 0;
  private readonly abort = new AbortController();

  constructor(model: ModelInfo, request: ImageRequest, origin: Origin | null = null) {
    this.trace = signal<Trace>({
      id: ++lastId,
      model,
      request,
      origin,
      status: "waiting",
      ahead: 0,
      started: null,
      states: [],
      done: null,
      problem: null,
    });
  }

  get id(): number {
    return this.trace.peek().id;
  }

  get isActive(): boolean {
    return ["waiting", "running"].includes(this.trace.value.status);
  }

  /** Whether nothing was drawn, as the request was not accepted. */
  get isRefused(): boolean {
    const { status, started } = this.trace.value;
    return status === "failed" && !started;
  }

  /** Follows the request to its end; failures end up in the trace. */
  async run(): Promise<void> {
    try {
      for await (const event of generate(this.trace.peek().request, this.abort.signal)) this.take(event);
      if (this.isActive) this.change({ status: "failed", problem: "The server ended the answer before it was complete." });
    } catch (error) {
      if (isAbort(error) || this.abort.signal.aborted) this.change({ status: "stopped" });
      else this.change({ status: "failed", problem: (error as Error).message });
    }
  }

  /** Ends the request, here and on the server; what has arrived stays. */
  stop(): void {
    if (this.isActive) this.abort.abort();
  }

  /** Lets go of pictures that are seen only on the way. */
  thin(states: number): void {
    this.trace.value = thinned(this.trace.peek(), states);
  }

  private take({ event, data }: GenerateEvent): void {
    batch(() => {
      if (event === "queued") this.change({ ahead: data.ahead });
      else if (event === "started") this.change({ started: data, status: "running" });
      else if (event === "step") this.change({ states: [...this.trace.peek().states, data] });
      else if (event === "done") this.change({ done: data, status: "done" });
      else if (event === "failed") this.change({ status: "failed", problem: data.detail });
    });
  }

  private change(part: Partial<Trace>): void {
    this.trace.value = { ...this.trace.peek(), ...part };
  }
}
