/** The types of the server's API. Generated from its OpenAPI description by scripts/studio_types.py. */

/** A possible token of a cell. */
export interface Candidate {
  /** The token. */
  values: Values;
  /** At the temperature of the request; null for a continuous token, which is one of several samples. */
  probability: number | null;
  /** The cell and its neighbors (PNG, base64), the neighbors as predicted. */
  picture: string;
}

/** The prediction of a cell. */
export interface CellAnswer {
  cell: number;
  /** Codes by descending probability; of continuous tokens the mean, then samples. */
  candidates: Candidate[];
  /** Total probability of all other codes. */
  rest: number | null;
  uncertainty: number;
  uncertainty_name: string;
  /** Of continuous tokens, per channel. */
  mean: number[] | null;
  /** Of continuous tokens, the standard deviation per channel. */
  spread: number[] | null;
  /** Position of the cell in each picture: pixels from the top and from the left. */
  offset: [number, number];
  /** Pixels per side of the cell. */
  factor: number;
}

/** How one cell is sampled; a field that is left out is as the model was saved. There is no guidance. */
export interface CellOptions {
  /** Below 1 sharpens the distribution of every cell: it divides the logits of codes and scales all noise from which continuous tokens are sampled (the variance of a normal times its square). 0 takes the most likely code, or no noise; otherwise at least 0.0001. */
  temperature?: number | null;
  /** Keep only the k most likely codes of each cell. */
  top_k?: number | null;
  /** Keep only the smallest set of most likely codes with at least this total probability. */
  top_p?: number | null;
  /** Solver and solver steps of continuous tokens where cell_solver and cell_steps are unset. default: 12 steps of multistep, within 2% of the learned spread; fast: 8, within 5%. */
  preset?: "default" | "fast" | null;
  /** Solver of continuous tokens: multistep, or ancestral or ddim (diffusion), euler or heun (flow); unset takes the preset's. */
  cell_solver?: "multistep" | "ancestral" | "ddim" | "euler" | "heun" | null;
  /** Solver steps per continuous token; unset takes the preset's. */
  cell_steps?: number | null;
}

/** A request for the prediction of one unread cell. */
export interface CellRequest {
  /** Name of a model, as /api/models lists it. */
  model: string;
  /** A class; unset: no label. */
  label?: number | string | null;
  /** Height and width in pixels, multiples of the tokenizer's factor; unset: the trained size. */
  size?: [number, number] | null;
  known: Tokens;
  /** Index of a cell: row · columns + column. */
  cell: number;
  sampling?: CellOptions;
  /** Number of most likely codes, or of samples of a continuous token. */
  top?: number;
  /** Seed of the samples of a continuous token. */
  seed?: number;
}

/** Keeps the pixels of an image wherever the mask is black. */
export interface Composite {
  /** A PNG file, base64. */
  image: string;
  /** A PNG file of the same size, base64: white where to repaint. */
  mask: string;
}

/** A figure over the steps of training. */
export interface Curve {
  name: string;
  steps: number[];
  values: number[];
}

/** Event ``done``: the finished images. */
export interface Done {
  images: FinishedImage[];
  /** Without waiting. */
  seconds: number;
}

/** An uploaded image as the model sees it. */
export interface Encoded {
  /** Height and width in pixels, as fitted. */
  size: Size;
  grid: Size;
  /** As fitted (PNG, base64). */
  picture: string;
  /** As the tokenizer reconstructs it (PNG, base64). */
  reconstruction: string;
  /** Tokens of all cells in raster order. */
  values: Values;
  /** Conversions that were made. */
  converted: string[];
}

/** A result of ``heptapod evaluate``. */
export interface Evaluation {
  /** Its folder. */
  name: string;
  steps: number | null;
  token_order: string | null;
  temperature: number | null;
  count: number;
  evaluator: string;
  reference: string;
  metrics: Record<string, number>;
}

/** Event ``failed``: the last event of a request that failed. */
export interface Failed {
  detail: string;
}

/** A finished image. */
export interface FinishedImage {
  seed: number;
  /** PNG, base64. */
  picture: string;
  /** Generates the same image again: ``heptapod sample --from FILE.json``. */
  record: Record<string, unknown>;
}

/** New images, or images continued from known cells (a fork, a pinned choice, in- and outpainting). */
export interface GenerateRequest {
  /** Name of a model, as /api/models lists it. */
  model: string;
  /** A class; unset: no label. */
  label?: number | string | null;
  /** Height and width in pixels, multiples of the tokenizer's factor; unset: the trained size. */
  size?: [number, number] | null;
  sampling?: SamplingOptions;
  /** Number of images. Image i has seed + i. */
  count?: number;
  seed?: number;
  /** Cells to keep, in every image. */
  known?: Known | null;
  composite?: Composite | null;
  /** At how many evenly spaced states to show the predicted picture. */
  frames?: number;
}

/** One image at one state. */
export interface ImageState {
  /** The cells that this step fills, in reading order; none at the end. */
  cells: number[];
  /** Their tokens. */
  values: Values;
  /** The most likely whole picture given the cells read before (PNG, base64); if the head does not predict the whole grid, a picture of those cells. Only at the states selected by ``frames``: the first, the last and some between. */
  picture: string | null;
  /** Of every cell, 0 for read cells; only at states with a picture, and only if the head predicts the whole grid. */
  uncertainty: number[] | null;
}

/** Cells that are given, and their tokens. */
export interface Known {
  cells: number[];
  values: Values;
  /** Read them in this order, to continue an image; else in the token order of the model. */
  in_order?: boolean;
}

/** The limits of the server. */
export interface Limits {
  count: number;
  steps: number;
  /** Solver steps per continuous token. */
  cell_steps: number;
  /** Pixels of the longer side of an image. */
  side: number;
  /** Of all images of a request together. */
  cells: number;
  upload_bytes: number;
  upload_pixels: number;
  /** Requests that may wait. */
  waiting: number;
}

/** A model that is served. */
export interface ModelInfo {
  name: string;
  class_names: string[];
  /** The model was never trained without a label. */
  needs_label: boolean;
  /** Height and width of its images in pixels. */
  size: Size;
  grid: Size;
  factor: number;
  /** Codes; 0 if tokens are continuous. */
  vocabulary_size: number;
  /** Channels of a continuous token; 0 if tokens are codes. */
  channels: number;
  head: string;
  /** Whether its head predicts the whole grid. */
  believes: boolean;
  /** Of its training. */
  token_order: string;
  /** Orders that sampling may follow without a warning. */
  token_orders: string[];
  /** Its defaults. */
  sampling: SamplingConfig;
  uncertainty_name: string;
  parameters: number;
  /** Facts about its weights: the step, held-out figures. */
  about: Record<string, string>;
  /** Whether /api/models/NAME/run has training curves or evaluations. */
  has_run: boolean;
}

/** Event ``queued``: the request waits. */
export interface Queued {
  /** Requests that must end first. */
  ahead: number;
}

/** The run folder of a model. */
export interface Run {
  /** "model", or "tokenizer" for the training of its tokenizer. */
  stage: string;
  curves: Curve[];
  /** Steps with a sample grid: /api/models/NAME/run/grids/STAGE/STEP. */
  grids: number[];
  /** The resolved recipe (YAML). */
  settings: string;
}

/** The training and the evaluations of a model. */
export interface RunAnswer {
  runs: Run[];
  evaluations: Evaluation[];
}

/** How images are sampled. There is no classifier-free guidance. */
export interface SamplingConfig {
  steps?: number | null;
  token_order?: "raster" | "random" | "spread" | "spiral" | "confidence" | null;
  schedule?: "cosine" | "constant" | number[];
  temperature?: number;
  top_k?: number | null;
  top_p?: number | null;
  preset?: "default" | "fast";
  cell_solver?: "multistep" | "ancestral" | "ddim" | "euler" | "heun" | null;
  cell_steps?: number | null;
  /** Only for a global head: keep the states of read cells between steps instead of recomputing them. Faster, but not the exact prediction. */
  approximate_head?: boolean;
}

/** How images are sampled; a field that is left out is as the model was saved, null unsets steps, top_k or top_p. */
export interface SamplingOptions {
  /** Sampling steps; unset means one cell per step. */
  steps?: number | null;
  /** Order in which cells are filled: raster, random, spread (the cells of a step lie far apart), spiral (from the center outwards) or confidence (the cells with the least uncertainty first); unset takes the order of training (raster where it was mixed). */
  token_order?: "raster" | "random" | "spread" | "spiral" | "confidence" | null;
  /** Cells per step: cosine (few at first, many at the end), constant, or a list of cell counts that fill the grid. */
  schedule?: "cosine" | "constant" | number[] | null;
  /** Below 1 sharpens the distribution of every cell: it divides the logits of codes and scales all noise from which continuous tokens are sampled (the variance of a normal times its square). 0 takes the most likely code, or no noise; otherwise at least 0.0001. */
  temperature?: number | null;
  /** Keep only the k most likely codes of each cell. */
  top_k?: number | null;
  /** Keep only the smallest set of most likely codes with at least this total probability. */
  top_p?: number | null;
  /** Solver and solver steps of continuous tokens where cell_solver and cell_steps are unset. default: 12 steps of multistep, within 2% of the learned spread; fast: 8, within 5%. */
  preset?: "default" | "fast" | null;
  /** Solver of continuous tokens: multistep, or ancestral or ddim (diffusion), euler or heun (flow); unset takes the preset's. */
  cell_solver?: "multistep" | "ancestral" | "ddim" | "euler" | "heun" | null;
  /** Solver steps per continuous token; unset takes the preset's. */
  cell_steps?: number | null;
  /** Only for a global head: keep the states of read cells between steps instead of recomputing them. Faster, but not the exact prediction. */
  approximate_head?: boolean | null;
}

/** The models and limits of the server. */
export interface Served {
  version: string;
  devices: string[];
  models: ModelInfo[];
  limits: Limits;
}

/** Height and width. */
export type Size = [number, number];

/** Event ``started``: a device works on the request. */
export interface Started {
  /** Rows and columns. */
  grid: Size;
  /** Pixels per side of a cell. */
  factor: number;
  label: number | null;
  seeds: number[];
  /** Cells that are given. */
  known: number[];
  /** Number of cells that each step fills. */
  steps: number[];
  /** The whole sampling config. */
  sampling: SamplingConfig;
  /** What ``uncertainty`` measures, with its unit. */
  uncertainty_name: string;
  /** Parts of the request that the model was not trained for. */
  warnings: string[];
}

/** Event ``step``: a state, before its cells are filled. State 0 has read the known cells only, the last has all. */
export interface StepEvent {
  step: number;
  images: ImageState[];
}

/** Cells that are read, in reading order, and their tokens. */
export interface Tokens {
  cells: number[];
  values: Values;
}

/** Codes, one per cell; or continuous tokens, C channels per cell: base64 of float32 (LE). */
export type Values = number[] | string;
