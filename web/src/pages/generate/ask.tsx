/** Ask a cell: what it could become, how likely each choice is, and what would follow from it. */

import { batch, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { askCell } from "../../api/client";
import type { CellAnswer } from "../../api/types";
import { cellRequest } from "../../logic/continue";
import { filledAt, gridOf, type Trace } from "../../logic/trace";
import { asked, image, showStep, step, trace } from "../../store/stage";
import { IconButton, Notice } from "../../ui/fields";
import { NARROW } from "../../ui/canvas";
import { Answer, picked } from "./answer";
import { focusImage } from "./panels";

const TOP = 8;

/** What the server said, and to which question: the trace, the image and the cell, and the state. */
interface Reply {
  about: string;
  at: number;
  answer: CellAnswer | null;
  problem: string | null;
}

const reply = signal<Reply | null>(null);
const subject = (trace: Trace, index: number, cell: number) => `${trace.id} ${index} ${cell}`;

export function AskPanel() {
  const cell = asked.value;
  const shown = trace.value;
  const heading = useRef<HTMLHeadingElement>(null);
  const filled = shown && cell !== null ? filledAt(shown, image.value, step.value) : null;
  const isRead = filled !== null && filled.rank[cell!]! >= 0;
  useAnswer(shown, isRead ? null : cell);

  useEffect(() => {
    if (cell === null) return;
    if (matchMedia(NARROW).matches) document.querySelector(".panel")?.scrollIntoView(); // above the panel
    heading.current?.focus({ preventScroll: true });
    const onKeyDown = (event: KeyboardEvent) => event.key === "Escape" && close();
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, [cell]);

  if (cell === null || !shown || !filled) return null;
  const [, columns] = gridOf(shown);
  const found = reply.value?.about === subject(shown, image.value, cell) ? reply.value : null;
  const isFresh = found?.at === step.value;
  return (
    <section class="ask" aria-labelledby="ask-title">
      <header>
        <h2 id="ask-title" ref={heading} tabIndex={-1}>
          Cell in row {Math.floor(cell / columns) + 1}, column {(cell % columns) + 1}
        </h2>
        <IconButton icon="close" label="Close" onClick={close} />
      </header>
      {isRead ? (
        <WasRead filledIn={filled.step[cell]!} isPinned={shown.origin?.pinned === cell} />
      ) : isFresh && found.problem ? (
        <Notice kind="problem">{found.problem}</Notice>
      ) : found?.answer ? (
        <Answer trace={shown} at={found.at} answer={found.answer} isFresh={isFresh} />
      ) : (
        <p class="quiet">Asking the model …</p>
      )}
    </section>
  );
}

function close(): void {
  asked.value = null;
  focusImage();
}

/** Asks again whenever the cell, the image or the state changes; an answer that is overtaken is dropped. */
function useAnswer(shown: Trace | null, cell: number | null): void {
  const [at, index] = [step.value, image.value];
  useEffect(() => {
    if (!shown || cell === null) return;
    const abort = new AbortController();
    const about = subject(shown, index, cell);
    const take = (answer: CellAnswer | null, problem: string | null) =>
      batch(() => {
        if (abort.signal.aborted) return;
        picked.value = null;
        reply.value = { about, at, answer, problem };
      });
    const timer = setTimeout(() => {
      askCell(cellRequest(shown, index, at, cell, TOP), abort.signal).then(
        (answer) => take(answer, null),
        (error: Error) => take(null, error.message),
      );
    }, 120);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [shown?.id, index, at, cell]);
}

function WasRead({ filledIn, isPinned }: { filledIn: number; isPinned: boolean }) {
  if (isPinned) return <p>You pinned this cell: its value was chosen by hand.</p>;
  if (filledIn < 0) return <p>This cell was given, not sampled, so there is no prediction.</p>;
  return (
    <>
      <p>It was filled in step {filledIn + 1}. Before that step it could still have become something else.</p>
      <button type="button" onClick={() => showStep(filledIn)}>
        Go back to before step {filledIn + 1}
      </button>
    </>
  );
}
