import { defineConfig, loadEnv } from "vite";

/** The page is built into the Python package. `npm run dev` forwards the API to `heptapod studio` at its usual port. */
const server = loadEnv("development", ".", "HEPTAPOD_")["HEPTAPOD_STUDIO"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/heptapod/studio/static",
    emptyOutDir: true,
    target: "es2022",
    license: { fileName: "licenses.md" },
    modulePreload: { polyfill: false },
    rolldownOptions: { output: { hashCharacters: "hex" } },
  },
  server: { proxy: { "/api": server, "/docs": server, "/openapi.json": server } },
});
