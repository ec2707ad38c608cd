/** Fields that are out of the way until they matter. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

interface Props {
  summary: string;
  /** Opens when it becomes true or another problem; it is closed by hand only. */
  opens: string | boolean;
  children: ComponentChildren;
}

export function Details({ summary, opens, children }: Props) {
  const [open, setOpen] = useState(!!opens);
  useEffect(() => {
    if (opens) setOpen(true);
  }, [opens]);
  return (
    <details class="more" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{summary}</summary>
      <div class="fields">{children}</div>
    </details>
  );
}

/** Opens what hides a field that a form finds wrong, so that the browser can point at it. */
export function reveal(event: Event): void {
  let at = (event.target as Element).closest("details");
  for (; at; at = at.parentElement?.closest("details") ?? null) at.open = true;
}
