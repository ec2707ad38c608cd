/** The brush: paints what is to be repainted, by mouse, touch or keyboard. */

import { useRef, useState } from "preact/hooks";
import { paintRectangle, paintStroke } from "../../logic/mask";
import type { Source } from "../../logic/repaint";
import { beginStroke, brushSize, changeMask, mask, showReconstruction, tool, touched, undo } from "../../store/editing";
import { Canvas } from "../../ui/canvas";
import { useBitmap } from "../../ui/pictures";
import { drawMask, type Point } from "./draw_edit";

export function MaskEditor({ source }: { source: Source }) {
  const [height, width] = source.size;
  const { factor } = source.model;
  const shown = showReconstruction.value ? (source.reconstruction ?? source.picture) : source.picture;
  const bitmap = useBitmap(shown);
  const [cursor, setCursor] = useState<Point | null>(null);
  const [corner, setCorner] = useState<Point | null>(null);
  const last = useRef<Point | null>(null);
  const isRectangle = tool.value === "rectangle";
  const value = tool.value === "eraser" ? 0 : 1;
  const radius = brushSize.value / 2;
  const [painted, cells] = [mask.value, touched.value];

  const pointOf = (event: PointerEvent): Point => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    return [((event.clientY - box.top) / box.height) * height, ((event.clientX - box.left) / box.width) * width];
  };
  const stroke = (from: Point, to: Point) => changeMask((now) => paintStroke(now, from, to, radius, value));
  const rectangle = (from: Point, to: Point) => {
    beginStroke();
    changeMask((now) => paintRectangle(now, from, to, 1));
    setCorner(null);
  };

  const onPointerDown = (event: PointerEvent) => {
    if (!event.isPrimary || event.button !== 0) return;
    const at = pointOf(event);
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
    last.current = at;
    setCursor(at);
    if (isRectangle) return setCorner(at);
    beginStroke();
    stroke(at, at);
  };
  const onPointerMove = (event: PointerEvent) => {
    if (!event.isPrimary) return;
    const at = pointOf(event);
    setCursor(at);
    if (!last.current || isRectangle) return;
    stroke(last.current, at);
    last.current = at;
  };
  const onPointerUp = (event: PointerEvent) => {
    if (!event.isPrimary) return;
    if (isRectangle && last.current) rectangle(last.current, pointOf(event));
    last.current = null;
  };
  const letGo = () => {
    if (last.current) setCorner(null);
    last.current = null;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const pace = event.shiftKey ? 1 : factor;
    const [y, x] = cursor ?? [height / 2, width / 2];
    const moves: Record<string, Point> = { ArrowUp: [-pace, 0], ArrowDown: [pace, 0], ArrowLeft: [0, -pace], ArrowRight: [0, pace] };
    const move = moves[event.key];
    if (move) setCursor([Math.min(Math.max(y + move[0], 0.5), height - 0.5), Math.min(Math.max(x + move[1], 0.5), width - 0.5)]);
    else if (event.key === " " || event.key === "Enter") {
      setCursor([y, x]);
      if (!isRectangle) {
        beginStroke();
        stroke([y, x], [y, x]);
      } else if (corner) rectangle(corner, [y, x]);
      else setCorner([y, x]);
    } else if (event.key === "Escape") setCorner(null);
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
    else return;
    event.preventDefault();
  };

  return (
    <Canvas
      class="grid interactive mask"
      aspect={width / height}
      role="application"
      aria-roledescription="mask editor"
      aria-label="The image and its mask. Arrow keys move the brush, with Shift by a pixel; Space paints; Control Z takes back."
      tabIndex={0}
      draw={(context, inks, unit) =>
        drawMask(context, { bitmap, mask: painted, touched: cells, factor, cursor, radius, corner, isRectangle }, inks, unit)
      }
      onPointerLeave={() => !last.current && setCursor(null)}
      onBlur={() => setCursor(null)}
      onPointerCancel={letGo}
      onLostPointerCapture={letGo}
      {...{ onPointerDown, onPointerMove, onPointerUp, onKeyDown }}
    />
  );
}
