/** How far a request is: its place in the queue, its step, its time, its warnings, its problem. */

import { lastStep, type Trace } from "../logic/trace";
import { settingOf } from "../logic/problems";
import { Notice } from "./fields";

export function Status({ trace }: { trace: Trace | null }) {
  const steps = trace?.started?.steps.length ?? 0;
  const share = trace?.status === "done" ? 1 : steps ? Math.max(0, lastStep(trace!)) / steps : 0;
  const named = trace?.problem ? settingOf(trace.problem) : null;
  return (
    <div class="status" data-trace={trace?.id}>
      <div class={`progress${trace?.status === "waiting" ? " waits" : ""}`} aria-hidden="true">
        <span style={{ width: `${100 * share}%` }} />
      </div>
      <p role="status" aria-live="polite">
        {trace ? words(trace, steps) : "Ready."}
      </p>
      {trace?.started?.warnings.map((warning) => (
        <Notice key={warning} kind="warning">
          {warning}
        </Notice>
      ))}
      {trace?.problem && <Notice kind="problem">{named ? `Not drawn, because of ${trace.problem}` : trace.problem}</Notice>}
    </div>
  );
}

function words(trace: Trace, steps: number): string {
  switch (trace.status) {
    case "waiting":
      return trace.ahead ? `Waiting: ${trace.ahead} ${trace.ahead === 1 ? "request" : "requests"} ahead.` : "Waiting in the queue.";
    case "running":
      return "Drawing …";
    case "done":
      return `${steps} ${steps === 1 ? "step" : "steps"} in ${trace.done!.seconds.toFixed(2)} s.`;
    case "stopped":
      return `Stopped after ${Math.max(0, lastStep(trace))} of ${steps || "?"} steps.`;
    case "failed":
      return "Not finished.";
  }
}
