/** The canvas around an image: drag the image to place it, drag the lower right corner to size the canvas. */

import { useRef } from "preact/hooks";
import { fitted, type Placement } from "../../logic/outpaint";
import type { Source } from "../../logic/repaint";
import { longestSide, placement } from "../../store/editing";
import { Canvas } from "../../ui/canvas";
import { useBitmap } from "../../ui/pictures";
import { drawPlacement } from "./draw_edit";

/** So near the corner, in CSS pixels, the canvas is sized and not the image moved. */
const GRIP = 24;

interface Drag {
  from: Placement;
  x: number;
  y: number;
  /** CSS pixels to a pixel of the canvas when the drag began. */
  scale: number;
  sizes: boolean;
}

export function CanvasEditor({ source }: { source: Source }) {
  const bitmap = useBitmap(source.picture);
  const drag = useRef<Drag | null>(null);
  const { factor } = source.model;
  const place = placement.value;

  const move = (wanted: Placement) => (placement.value = fitted(wanted, source.size, factor, longestSide()));
  const onPointerDown = (event: PointerEvent) => {
    if (!event.isPrimary || event.button !== 0) return;
    const element = event.currentTarget as Element;
    const box = element.getBoundingClientRect();
    const sizes = event.clientX > box.right - GRIP && event.clientY > box.bottom - GRIP;
    element.setPointerCapture(event.pointerId);
    drag.current = { from: place, x: event.clientX, y: event.clientY, scale: box.width / place.width, sizes };
  };
  const onPointerMove = (event: PointerEvent) => {
    if (!drag.current || !event.isPrimary) return;
    const { from, x, y, scale, sizes } = drag.current;
    const [down, right] = [(event.clientY - y) / scale, (event.clientX - x) / scale];
    if (sizes) move({ ...from, height: from.height + down, width: from.width + right });
    else move({ ...from, top: from.top + down, left: from.left + right });
  };
  const letGo = () => (drag.current = null);
  const onKeyDown = (event: KeyboardEvent) => {
    const moves: Record<string, [number, number]> = {
      ArrowUp: [-factor, 0],
      ArrowDown: [factor, 0],
      ArrowLeft: [0, -factor],
      ArrowRight: [0, factor],
    };
    const by = moves[event.key];
    if (!by) return;
    event.preventDefault();
    if (event.shiftKey) move({ ...place, height: place.height + by[0], width: place.width + by[1] });
    else move({ ...place, top: place.top + by[0], left: place.left + by[1] });
  };

  return (
    <Canvas
      class="grid interactive placing"
      aspect={place.width / place.height}
      role="application"
      aria-roledescription="canvas"
      aria-label="The image on its canvas. Arrow keys move the image, with Shift they size the canvas."
      tabIndex={0}
      draw={(context, inks, unit) => drawPlacement(context, bitmap, place, source.size, factor, inks, unit)}
      onPointerUp={letGo}
      onPointerCancel={letGo}
      onLostPointerCapture={letGo}
      {...{ onPointerDown, onPointerMove, onKeyDown }}
    />
  );
}
