/** Draws an image's grid of cells on a canvas: pixels, covers, colors, numbers, outlines. */

export interface GridPicture {
  rows: number;
  columns: number;
  /** The pixels under everything. */
  bitmap?: ImageBitmap | null;
  /** Cells that are not to be seen. */
  covered?: (cell: number) => boolean;
  /** A color over the cell. */
  fill?: (cell: number) => string | null;
  /** A short text in the cell, and its color. */
  text?: (cell: number) => { text: string; ink: string } | null;
  /** Cells that this step fills. */
  fresh?: ReadonlySet<number>;
  cursor?: number | null;
  selected?: number | null;
}

export interface Inks {
  cover: string;
  line: string;
  accent: string;
}

interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

function boxOf(cell: number, { rows, columns }: GridPicture, width: number, height: number): Box {
  const [row, column] = [Math.floor(cell / columns), cell % columns];
  const x = Math.round((column * width) / columns);
  const y = Math.round((row * height) / rows);
  return {
    x,
    y,
    width: Math.round(((column + 1) * width) / columns) - x,
    height: Math.round(((row + 1) * height) / rows) - y,
  };
}

/** Sizes are in device pixels; `unit` is the number of device pixels per CSS pixel. */
export function drawGrid(context: CanvasRenderingContext2D, picture: GridPicture, inks: Inks, unit: number): void {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  if (picture.bitmap) drawBitmap(context, picture.bitmap);
  const cells = picture.rows * picture.columns;
  const thin = Math.max(1, Math.round(unit));
  const spacious = width / picture.columns > 7 * unit;
  for (let cell = 0; cell < cells; cell++) {
    const box = boxOf(cell, picture, width, height);
    const color = picture.fill?.(cell) ?? (picture.covered?.(cell) ? inks.cover : null);
    if (color) {
      context.fillStyle = color;
      context.fillRect(box.x, box.y, box.width, box.height);
      if (color === inks.cover && spacious) {
        context.fillStyle = inks.line;
        context.fillRect(box.x + box.width - thin, box.y, thin, box.height);
        context.fillRect(box.x, box.y + box.height - thin, box.width, thin);
      }
    }
    drawText(context, picture, cell, box, unit);
  }
  for (const cell of picture.fresh ?? []) outline(context, boxOf(cell, picture, width, height), inks.accent, 1.5 * unit);
  if (picture.cursor != null) outlineTwice(context, boxOf(picture.cursor, picture, width, height), unit);
  if (picture.selected != null) {
    outline(context, boxOf(picture.selected, picture, width, height), "#ffffff", 4 * unit);
    outline(context, boxOf(picture.selected, picture, width, height), inks.accent, 2.5 * unit);
  }
}

export function drawBitmap(context: CanvasRenderingContext2D, bitmap: ImageBitmap): void {
  const { width, height } = context.canvas;
  context.imageSmoothingEnabled = width < bitmap.width * 2;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
}

function drawText(context: CanvasRenderingContext2D, picture: GridPicture, cell: number, box: Box, unit: number): void {
  const label = picture.text?.(cell);
  const size = Math.min(box.width * 0.45, box.height * 0.6, 15 * unit);
  if (!label || size < 7 * unit) return;
  context.font = `${size}px ui-sans-serif, system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = label.ink;
  context.fillText(label.text, box.x + box.width / 2, box.y + box.height / 2 + size * 0.05);
}

function outline(context: CanvasRenderingContext2D, box: Box, color: string, thickness: number): void {
  context.strokeStyle = color;
  context.lineWidth = thickness;
  const inset = thickness / 2;
  context.strokeRect(box.x + inset, box.y + inset, box.width - thickness, box.height - thickness);
}

/** White and black, so that it shows on anything. */
function outlineTwice(context: CanvasRenderingContext2D, box: Box, unit: number): void {
  outline(context, box, "#000000", 3 * unit);
  outline(context, box, "#ffffff", 1.5 * unit);
}
