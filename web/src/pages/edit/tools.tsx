/** What the brush does, or how large the canvas is. */

import { invertMask } from "../../logic/mask";
import { centered, fitted, type Placement } from "../../logic/outpaint";
import type { Source } from "../../logic/repaint";
import {
  beginStroke,
  brushSize,
  canUndo,
  cellsToFill,
  changeMask,
  clear,
  longestSide,
  placement,
  showReconstruction,
  type Tool,
  tool,
  undo,
} from "../../store/editing";
import { CheckBox, IconButton, NumberField } from "../../ui/fields";
import type { IconName } from "../../ui/icons";

const TOOLS: [Tool, IconName, string][] = [
  ["brush", "brush", "Brush"],
  ["eraser", "eraser", "Eraser"],
  ["rectangle", "rectangle", "Rectangle"],
];

export function MaskTools({ source }: { source: Source }) {
  const largest = Math.max(2, Math.ceil(Math.min(...source.size) / 2));
  const invert = () => {
    beginStroke();
    changeMask(invertMask);
  };
  return (
    <div class="tools" role="toolbar" aria-label="Mask">
      {TOOLS.map(([name, icon, label]) => (
        <IconButton key={name} icon={icon} label={label} pressed={tool.value === name} onClick={() => (tool.value = name)} />
      ))}
      <label class="inline size">
        <span>size</span>
        <input
          type="range"
          aria-label="Brush size"
          min={1}
          max={largest}
          step={1}
          value={brushSize.value}
          style={{ "--share": `${(100 * (brushSize.value - 1)) / (largest - 1)}%` }}
          onInput={(event) => (brushSize.value = Number(event.currentTarget.value))}
        />
        <output>{brushSize.value}</output>
      </label>
      <IconButton icon="undo" label="Undo" onClick={undo} disabled={!canUndo.value} />
      <IconButton icon="invert" label="Invert the mask" onClick={invert} />
      <IconButton icon="clear" label="Clear the mask" onClick={clear} disabled={cellsToFill.value === 0} />
      {source.reconstruction && (
        <CheckBox
          label="as the tokenizer sees it"
          checked={showReconstruction.value}
          onChange={(checked) => (showReconstruction.value = checked)}
        />
      )}
    </div>
  );
}

export function CanvasTools({ source }: { source: Source }) {
  const { factor } = source.model;
  const place = placement.value;
  const side = longestSide();
  const set = (name: keyof Placement) => (text: string) => {
    const value = text === "" ? place[name] : Number(text);
    placement.value = fitted({ ...place, [name]: value }, source.size, factor, side);
  };
  const field = (label: string, name: keyof Placement, min: number, max: number) => (
    <NumberField key={name} atTheEnd label={label} value={String(place[name])} onChange={set(name)} min={min} max={max} step={factor} />
  );
  return (
    <div class="tools canvas-size">
      {field("Height", "height", source.size[0], side)}
      {field("Width", "width", source.size[1], side)}
      {field("Top", "top", 0, place.height - source.size[0])}
      {field("Left", "left", 0, place.width - source.size[1])}
      <button type="button" onClick={() => (placement.value = centered(place, source.size, factor, side))}>
        Center
      </button>
    </div>
  );
}
