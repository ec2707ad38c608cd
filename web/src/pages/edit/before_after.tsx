/** Two pictures of one size, the boundary between them moved by a slider or by dragging over them. */

import { useState } from "preact/hooks";
import { Canvas } from "../../ui/canvas";
import { useBitmap } from "../../ui/pictures";

interface Props {
  before: string;
  after: string;
  aspect: number;
}

export function BeforeAfter({ before, after, aspect }: Props) {
  const [share, setShare] = useState(50);
  const [old, fresh] = [useBitmap(before), useBitmap(after)];
  const drag = (event: PointerEvent) => {
    if (!event.isPrimary || event.buttons !== 1) return;
    const box = (event.currentTarget as Element).getBoundingClientRect();
    setShare(Math.round(Math.min(Math.max((100 * (event.clientX - box.left)) / box.width, 0), 100)));
  };
  return (
    <>
      <div class="frame">
        <Canvas
          class="grid interactive sliding"
          role="img"
          aria-label="The image before, left of the boundary, and the result right of it"
          aspect={aspect}
          onPointerDown={drag}
          onPointerMove={drag}
          draw={(context, inks, unit) => {
            const { width, height } = context.canvas;
            const at = Math.round((width * share) / 100);
            context.clearRect(0, 0, width, height);
            if (fresh) draw(context, fresh, 0, width);
            if (old) draw(context, old, 0, at);
            context.fillStyle = "#000";
            context.fillRect(at - 1.5 * unit, 0, 3 * unit, height);
            context.fillStyle = inks.accent;
            context.fillRect(at - 0.75 * unit, 0, 1.5 * unit, height);
          }}
        />
      </div>
      <label class="inline wipe">
        <input
          type="range"
          aria-label="Boundary between before and after"
          aria-valuetext={`${share} percent before`}
          min={0}
          max={100}
          value={share}
          style={{ "--share": `${share}%` }}
          onInput={(event) => setShare(Number(event.currentTarget.value))}
        />
      </label>
    </>
  );
}

function draw(context: CanvasRenderingContext2D, bitmap: ImageBitmap, from: number, to: number): void {
  const { width, height } = context.canvas;
  context.save();
  context.beginPath();
  context.rect(from, 0, to - from, height);
  context.clip();
  context.imageSmoothingEnabled = width < bitmap.width * 2;
  context.drawImage(bitmap, 0, 0, width, height);
  context.restore();
}
