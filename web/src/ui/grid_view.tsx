/** An image as a grid of cells, which may be pointed at and chosen by mouse, touch and keyboard. */

import { Canvas } from "./canvas";
import { drawGrid, type GridPicture } from "./draw";
import { useBitmap } from "./pictures";

interface Props extends Omit<GridPicture, "bitmap"> {
  label: string;
  /** PNG, base64. */
  png: string | null;
  onPoint?: (cell: number | null) => void;
  onChoose?: (cell: number) => void;
}

export function GridView({ label, png, onPoint, onChoose, ...picture }: Props) {
  const bitmap = useBitmap(png);
  const { rows, columns, cursor } = picture;
  const interactive = onChoose !== undefined;

  const cellAt = (event: MouseEvent): number | null => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    return row >= 0 && row < rows && column >= 0 && column < columns ? row * columns + column : null;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const at = cursor ?? 0;
    const [row, column] = [Math.floor(at / columns), at % columns];
    const moves: Record<string, [number, number]> = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      Home: [row, 0],
      End: [row, columns - 1],
    };
    const move = moves[event.key];
    if (move) {
      const clamp = (value: number, size: number) => Math.min(Math.max(value, 0), size - 1);
      onPoint?.(clamp(move[0], rows) * columns + clamp(move[1], columns));
    } else if (event.key === "Enter" || event.key === " ") onChoose?.(at);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const interaction = interactive
    ? {
        tabIndex: 0,
        role: "application",
        "aria-roledescription": "grid of cells",
        onPointerMove: (event: PointerEvent) => onPoint?.(cellAt(event)),
        onPointerLeave: () => onPoint?.(null),
        onFocus: (event: FocusEvent) => {
          if ((event.currentTarget as Element).matches(":focus-visible")) onPoint?.(cursor ?? 0);
        },
        onBlur: () => onPoint?.(null),
        onClick: (event: MouseEvent) => {
          const cell = cellAt(event);
          if (cell !== null) onChoose(cell);
        },
        onKeyDown,
      }
    : { role: "img" };
  return (
    <Canvas
      class={interactive ? "grid interactive" : "grid"}
      aria-label={label}
      aspect={columns / rows}
      draw={(context, inks, unit) => drawGrid(context, { ...picture, bitmap }, inks, unit)}
      {...(interaction as object)}
    />
  );
}
