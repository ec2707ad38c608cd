import { describe, expect, it } from "vitest";

const SOURCES = import.meta.glob<string>("../src/**/*.{ts,tsx}", { query: "?raw", import: "default", eager: true });

type Imports = Record<string, string[]>;

/** The modules that each module imports, types included. */
function importsOf(sources: Record<string, string>): Imports {
  const resolve = (from: string, to: string) => {
    const path = new URL(to, `file:///${from.replace(/^\.\.\//, "")}`).pathname.slice(1);
    return Object.keys(sources).find((file) => [`../${path}.ts`, `../${path}.tsx`].includes(file));
  };
  const imported = (file: string, text: string) =>
    [...text.matchAll(/(?:from|import)\s*\(?"(\.[^"]*)"/g)].map(([, to]) => resolve(file, to!)).filter((name) => name !== undefined);
  return Object.fromEntries(Object.entries(sources).map(([file, text]) => [file, imported(file, text)]));
}

/** The first import circle, or null. */
function circle(imports: Imports): string[] | null {
  const done = new Set<string>();
  const visit = (file: string, path: string[]): string[] | null => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return null;
    for (const next of imports[file] ?? []) {
      const found = visit(next, [...path, file]);
      if (found) return found;
    }
    done.add(file);
    return null;
  };
  return Object.keys(imports).reduce<string[] | null>((found, file) => found ?? visit(file, []), null);
}

describe("imports", () => {
  it("form no circle", () => {
    const imports = importsOf(SOURCES);
    expect(imports["../src/main.tsx"]).toContain("../src/app.tsx");
    expect(circle(imports)).toBeNull();
  });

  it("would be found in a circle", () => {
    const sources = { "../src/a.ts": 'import { b } from "./ui/b";', "../src/ui/b.tsx": 'import type { A } from "../a";' };
    expect(circle(importsOf(sources))).toEqual(["../src/a.ts", "../src/ui/b.tsx", "../src/a.ts"]);
  });
});
