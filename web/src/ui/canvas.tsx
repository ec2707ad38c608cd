/** A canvas as sharp as the screen, drawn again when its size, its content or the color scheme changes. */

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Inks } from "./draw";

/** Screens on which everything is in one column; the style sheets say the same. */
export const NARROW = "(max-width: 860px)";

const dark = matchMedia("(prefers-color-scheme: dark)");
const scheme = signal(0);
dark.addEventListener("change", () => scheme.value++);

export function inksOf(element: Element): Inks {
  const style = getComputedStyle(element);
  const ink = (name: string) => style.getPropertyValue(name).trim();
  return { cover: ink("--cover"), line: ink("--cover-line"), accent: ink("--accent-strong") };
}

type Props = Omit<JSX.IntrinsicElements["canvas"], "ref" | "width" | "height"> & {
  /** Width by height. */
  aspect: number;
  draw: (context: CanvasRenderingContext2D, inks: Inks, unit: number) => void;
};

export function Canvas({ aspect, draw, style, ...props }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [size, setSize] = useState<[number, number]>([0, 0]);
  void scheme.value;

  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setSize([width, height]);
    });
    observer.observe(canvas.current!);
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    const element = canvas.current!;
    const unit = devicePixelRatio || 1;
    const [width, height] = size.map((length) => Math.round(length * unit)) as [number, number];
    if (!width || !height) return;
    if (element.width !== width || element.height !== height) Object.assign(element, { width, height });
    draw(element.getContext("2d")!, inksOf(element), unit);
  });

  return <canvas ref={canvas} {...props} style={{ ...(style as object), "--aspect": aspect }} />;
}
