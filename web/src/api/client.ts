/** Calls of the server's API. Every failure becomes an `ApiError` with a message for the user. */

import { EventParser } from "./sse";
import type {
  CellAnswer,
  CellRequest,
  Done,
  Encoded,
  Failed,
  GenerateRequest,
  Queued,
  RunAnswer,
  Served,
  Started,
  StepEvent,
} from "./types";

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** A request for images as the page sends it: nothing is left for the server to fill in but the sampling config. */
export type ImageRequest = Omit<GenerateRequest, "label"> &
  Required<Pick<GenerateRequest, "count" | "seed" | "sampling">> & { label?: number | null };

export type GenerateEvent =
  | { event: "queued"; data: Queued }
  | { event: "started"; data: Started }
  | { event: "step"; data: StepEvent }
  | { event: "done"; data: Done }
  | { event: "failed"; data: Failed };

export const getModels = () => call<Served>("api/models");

export const getRun = (model: string) => call<RunAnswer>(`api/models/${encodeURIComponent(model)}/run`);

export const gridAddress = (model: string, stage: string, step: number) =>
  `api/models/${encodeURIComponent(model)}/run/grids/${stage}/${step}`;

export const askCell = (request: CellRequest, signal: AbortSignal) =>
  call<CellAnswer>("api/cell", { ...json(request), signal });

export function encode(model: string, file: Blob, fit: "crop" | "keep"): Promise<Encoded> {
  const body = new FormData();
  body.append("file", file);
  body.append("model", model);
  body.append("fit", fit);
  return call<Encoded>("api/encode", { method: "POST", body });
}

/** The events of a generation, as they come. Aborting the signal also stops the server. */
export async function* generate(request: ImageRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent> {
  const response = await send("api/generate", { ...json(request), signal });
  if (!response.body) throw new ApiError("The server's answer has no content.", response.status);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(lost);
      if (done) return;
      for (const { event, data } of parser.push(value)) {
        yield { event, data: JSON.parse(data) } as GenerateEvent;
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined); // whoever reads no further lets the server know
  }
}

function lost(error: unknown): never {
  if (isAbort(error)) throw error;
  throw new ApiError("The connection to the server was lost before the image was complete.", 0);
}

const json = (body: unknown): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

async function call<T>(address: string, init?: RequestInit): Promise<T> {
  return (await (await send(address, init)).json()) as T;
}

async function send(address: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(address, init);
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError("The server does not answer. Is `heptapod studio` still running?", 0);
  }
  if (!response.ok) throw new ApiError(await problem(response), response.status);
  return response;
}

interface FieldProblem {
  loc?: (string | number)[];
  msg?: string;
}

/** What the server says is wrong: one line, or a list of fields with a message each. */
async function problem(response: Response): Promise<string> {
  if (response.status === 401) {
    return "This server wants a token: open the address that it printed when it was started, with ?token=… at its end.";
  }
  const answer = (await response.json().catch(() => null)) as { detail?: string | FieldProblem[] } | null;
  return describeProblem(answer?.detail) ?? `The server answered ${response.status} ${response.statusText}.`;
}

export function describeProblem(detail: string | FieldProblem[] | undefined): string | null {
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail) || !detail.length) return null;
  const found = new Map<string, Set<string>>();
  for (const { loc = [], msg = "not valid" } of detail) {
    const variant = loc.findIndex((part) => /^\w+\[/.test(String(part))); // list[…]: one of the kinds that a value may have
    const field = loc.slice(0, variant < 0 ? undefined : variant).filter((part) => part !== "body").join(".");
    found.set(field, (found.get(field) ?? new Set()).add(msg));
  }
  return [...found].map(([field, words]) => (field ? `${field}: ` : "") + [...words].join(", or ")).join("; ");
}

export const isAbort = (error: unknown) => error instanceof DOMException && error.name === "AbortError";
