/** A titled square for a picture; its size does not depend on what is in it. */

import type { ComponentChildren } from "preact";

interface Props {
  title: string;
  aside?: string;
  legend?: ComponentChildren;
  className?: string;
  children: ComponentChildren;
}

export function Panel({ title, aside, legend, className = "", children }: Props) {
  return (
    <figure class={`panel ${className}`}>
      <figcaption>
        <strong>{title}</strong>
        {aside && <span>{aside}</span>}
        {legend}
      </figcaption>
      <div class="frame">{children}</div>
    </figure>
  );
}
