/** A candidate's picture, the cell in it outlined. */

import { Canvas } from "./canvas";
import { drawBitmap } from "./draw";
import { useBitmap } from "./pictures";

interface Props {
  png: string;
  /** Pixels from the top and from the left. */
  offset: [number, number];
  factor: number;
  label: string;
}

export function PatchView({ png, offset: [top, left], factor, label }: Props) {
  const bitmap = useBitmap(png);
  return (
    <span class="patch">
      <Canvas
        class="grid"
        role="img"
        aria-label={label}
        aspect={bitmap ? bitmap.width / bitmap.height : 1}
        draw={(context, inks, unit) => {
          const { width, height } = context.canvas;
          context.clearRect(0, 0, width, height);
          if (!bitmap) return;
          drawBitmap(context, bitmap);
          const [x, y] = [width / bitmap.width, height / bitmap.height];
          context.lineWidth = 1.5 * unit;
          context.strokeStyle = inks.accent;
          const out = context.lineWidth / 2; // around the cell, so that all of it is seen
          context.strokeRect(left * x - out, top * y - out, factor * x + 2 * out, factor * y + 2 * out);
        }}
      />
    </span>
  );
}
