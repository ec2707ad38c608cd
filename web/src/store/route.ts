/** The page in the address: `#/page?setting=value`. */

import { signal } from "@preact/signals";

export const PAGES = ["generate", "edit", "compare", "understand"] as const;
export type Page = (typeof PAGES)[number];

export interface Route {
  page: Page;
  query: URLSearchParams;
}

function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const page = PAGES.find((name) => name === path) ?? "generate";
  return { page, query: new URLSearchParams(query) };
}

export const route = signal<Route>(parse(location.hash));

window.addEventListener("hashchange", () => (route.value = parse(location.hash)));

export const go = (page: Page) => (location.hash = `#/${page}`);

/** Writes the settings of the page shown into the address, so that a reload or a shared link keeps them. */
export function remember(page: Page, entries: [string, string][]): void {
  // The address and not the route: the user may have left the page, and the hashchange event is still to come.
  if (parse(location.hash).page !== page) return;
  const query = new URLSearchParams(entries).toString();
  history.replaceState(null, "", `#/${page}${query ? `?${query}` : ""}`);
}
