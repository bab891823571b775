// Builds the live page (one document, one script, one style sheet) into src/export/page/built or into FOLDER.
//
// usage: node build.mjs [--check | FOLDER]      --check compares the build with the committed files; exit status 1 if they differ

import { readFileSync, writeFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const committed = join(here, "../src/export/page/built");
const [, , option] = process.argv;

const chart = join(here, "node_modules/uplot");
const licence = readFileSync(join(chart, "LICENSE"), "utf8").trim();
const version = JSON.parse(readFileSync(join(chart, "package.json"), "utf8")).version;

const bundled = (entry, extra) =>
  build({
    entryPoints: [join(here, "src", entry)],
    bundle: true,
    minify: true,
    write: false,
    legalComments: "none",
    target: "es2020",
    ...extra,
  }).then((result) => result.outputFiles[0].text);

const banner = `/* weir's live page. Bundled with it: uPlot ${version}.\n\n${licence}\n*/`;
const files = {
  "index.html": readFileSync(join(here, "src/index.html"), "utf8"),
  "page.js": await bundled("main.js", { format: "iife", banner: { js: banner } }),
  "page.css": await bundled("page.css"),
};

if (option === "--check") {
  const stale = Object.keys(files).filter((name) => files[name] !== readFileSync(join(committed, name), "utf8"));
  if (stale.length) {
    console.error(`${stale.join(", ")}: not what web/ builds; run npm ci && npm run build in web/ and commit the result`);
    process.exit(1);
  }
} else {
  const folder = option ?? committed;
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(folder, name), text);
    console.log(`${name}: ${Buffer.byteLength(text)} bytes`);
  }
}
