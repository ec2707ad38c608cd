/** Moves over the states of the image shown: a slider, buttons, and keys anywhere on the page. */

import { useEffect } from "preact/hooks";
import { lastStep, type Trace } from "../../logic/trace";
import { current, playing, showStep, step, stop, trace } from "../../store/stage";
import { IconButton } from "../../ui/fields";

/** Milliseconds to play all states, within limits per state. */
const DURATION = 4000;

export function Transport() {
  const shown = trace.value;
  const last = shown ? Math.max(0, lastStep(shown)) : 0;
  const steps = shown?.started?.steps.length ?? last;
  const disabled = !shown?.states.length;
  usePlaying(steps);
  useKeys();
  return (
    <div class="transport" role="group" aria-label="Player">
      <IconButton icon="first" label="First state" onClick={() => seek(0)} disabled={disabled} />
      <IconButton icon="previous" label="One step back" onClick={() => seek(step.peek() - 1)} disabled={disabled} />
      <IconButton
        icon={playing.value ? "pause" : "play"}
        label={playing.value ? "Pause" : "Play"}
        onClick={togglePlaying}
        disabled={disabled}
      />
      <IconButton icon="next" label="One step on" onClick={() => seek(step.peek() + 1)} disabled={disabled} />
      <IconButton icon="last" label="Last state" onClick={() => seek(last)} disabled={disabled} />
      <input
        type="range"
        aria-label="Step"
        aria-valuetext={valueText(shown, step.value, steps)}
        min={0}
        max={Math.max(1, steps)}
        step={1}
        value={step.value}
        disabled={disabled}
        style={{ "--share": `${(100 * step.value) / Math.max(1, steps)}%`, "--arrived": `${(100 * last) / Math.max(1, steps)}%` }}
        onInput={(event) => {
          seek(Number(event.currentTarget.value));
          event.currentTarget.value = String(step.peek());
        }}
      />
      <span class="narrow">{current.value?.isActive && <IconButton icon="stop" label="Stop" onClick={stop} />}</span>
      <output>{disabled ? "–" : `${step.value} / ${steps}`}</output>
    </div>
  );
}

function valueText(trace: Trace | null, at: number, steps: number): string {
  if (!trace?.states.length) return "nothing drawn yet";
  return at === steps ? `finished, after ${steps} steps` : `before step ${at + 1} of ${steps}`;
}

function seek(at: number): void {
  playing.value = false;
  showStep(at);
}

function togglePlaying(): void {
  const shown = trace.peek();
  if (!playing.peek() && shown && step.peek() >= lastStep(shown)) showStep(0);
  playing.value = !playing.peek();
}

function usePlaying(steps: number): void {
  useEffect(() => {
    if (!playing.value) return;
    const timer = setInterval(
      () => {
        const shown = trace.peek();
        const atEnd = !shown || step.peek() >= lastStep(shown);
        if (!atEnd) showStep(step.peek() + 1);
        else if (!current.peek()?.isActive) playing.value = false;
      },
      Math.min(Math.max(DURATION / Math.max(steps, 1), 40), 400),
    );
    return () => clearInterval(timer);
  }, [playing.value, steps]);
}

const FORM = "input, select, textarea, button, summary, a, [role=application]";

/** ← → Home End move, Space plays; fields, buttons and grids keep their keys. */
function useKeys(): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const target = event.target as Element;
      if (event.ctrlKey || event.metaKey || event.altKey || !trace.peek()?.states.length) return;
      if (target.closest(FORM) && !(target.closest("button, summary, a") && event.key.startsWith("Arrow"))) return;
      const moves: Record<string, () => void> = {
        ArrowLeft: () => seek(step.peek() - 1),
        ArrowRight: () => seek(step.peek() + 1),
        Home: () => seek(0),
        End: () => seek(lastStep(trace.peek()!)),
        " ": togglePlaying,
      };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      move();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, []);
}
