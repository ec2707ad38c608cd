/** What the server's API takes and gives: `src/heptapod/studio/schemas.py`, in TypeScript. */

/** Codes, one per cell; or vectors: base64 of little-endian float32, `channels` numbers per cell. */
export type Values = number[] | string;

/** Height and width. */
export type Size = [number, number];

export interface Sampling {
  steps?: number;
  token_order?: string;
  schedule?: string | number[];
  temperature?: number;
  top_k?: number;
  top_p?: number;
  preset?: string;
  cell_solver?: string;
  cell_steps?: number;
  approximate_head?: boolean;
}

/** Cells that are read, in reading order. */
export interface Tokens {
  cells: number[];
  values: Values;
}

export interface Known extends Tokens {
  /** Read them in this order; else as the token order has them. */
  in_order: boolean;
}

export interface Subject {
  model: string;
  label?: number | null;
  size?: Size;
  sampling: Sampling;
}

export interface GenerateRequest extends Subject {
  count: number;
  seed: number;
  known?: Known;
  composite?: { image: string; mask: string };
  frames?: number;
}

export interface CellRequest extends Subject {
  known: Tokens;
  cell: number;
  top: number;
  seed: number;
}

export interface Queued {
  ahead: number;
}

export interface Started {
  grid: Size;
  factor: number;
  label: number | null;
  seeds: number[];
  known: number[];
  steps: number[];
  sampling: Record<string, unknown>;
  uncertainty_name: string;
  warnings: string[];
}

export interface ImageState {
  cells: number[];
  values: Values;
  picture: string | null;
  uncertainty: number[] | null;
}

export interface StepEvent {
  step: number;
  images: ImageState[];
}

export interface FinishedImage {
  seed: number;
  picture: string;
  record: Record<string, unknown>;
}

export interface Done {
  images: FinishedImage[];
  seconds: number;
}

export interface Failed {
  detail: string;
}

export interface Candidate {
  values: Values;
  probability: number | null;
  picture: string;
}

export interface CellAnswer {
  cell: number;
  candidates: Candidate[];
  rest: number | null;
  uncertainty: number;
  uncertainty_name: string;
  mean: number[] | null;
  spread: number[] | null;
  offset: [number, number];
  factor: number;
}

export interface Encoded {
  size: Size;
  grid: Size;
  picture: string;
  reconstruction: string;
  values: Values;
  converted: string[];
}

export interface Limits {
  count: number;
  steps: number;
  side: number;
  /** Of all images of a request together. */
  cells: number;
  upload_bytes: number;
  upload_pixels: number;
  waiting: number;
}

export interface ModelInfo {
  name: string;
  class_names: string[];
  needs_label: boolean;
  size: Size;
  grid: Size;
  factor: number;
  vocabulary_size: number;
  channels: number;
  head: string;
  believes: boolean;
  token_order: string;
  token_orders: string[];
  sampling: Record<string, unknown>;
  uncertainty_name: string;
  parameters: number;
  about: Record<string, string>;
  has_run: boolean;
}

export interface Served {
  version: string;
  devices: string[];
  models: ModelInfo[];
  limits: Limits;
}

export interface Curve {
  name: string;
  steps: number[];
  values: number[];
}

export interface Evaluation {
  name: string;
  steps: number | null;
  token_order: string | null;
  temperature: number | null;
  count: number;
  evaluator: string;
  reference: string;
  metrics: Record<string, number>;
}

export interface Run {
  stage: string;
  curves: Curve[];
  grids: number[];
  settings: string;
}

export interface RunAnswer {
  runs: Run[];
  evaluations: Evaluation[];
}
