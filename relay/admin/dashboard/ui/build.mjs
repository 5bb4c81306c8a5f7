// Builds ../dist from src: one script and one style sheet with the hash of their content in their names, the icon, the
// page that names them, and the hash of the source, by which a test in Go notices a build that is out of date. The
// same source gives the same bytes: all that takes part is pinned by package-lock.json.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "..", "dist");

/** The files that a build depends on, by their path with slashes, sorted. */
function sources() {
  const fixed = ["build.mjs", "package-lock.json", "package.json", "tsconfig.json"];
  const src = readdirSync(join(here, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(here.length + 1).replaceAll("\\", "/"));
  return [...fixed, ...src].sort((a, b) => (a < b ? -1 : 1));
}

/** The licences of what becomes part of the script: they ask to be kept with every copy. */
const licences = ["preact", "@preact/signals"]
  .map((name) => `${name}\n\n${readFileSync(join(here, "node_modules", name, "LICENSE"), "utf8").trim()}`)
  .join("\n\n");

const result = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx" },
  outdir: join(dist, "assets"),
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  banner: { js: `/*!\n${licences}\n*/` },
  charset: "utf8",
  logLevel: "warning",
  write: false,
});

const icon = readFileSync(join(here, "src", "icon.svg"));
const iconName = `icon-${createHash("sha256").update(icon).digest("hex").slice(0, 8)}.svg`;

rmSync(dist, { recursive: true, force: true });
mkdirSync(join(dist, "assets"), { recursive: true });
const names = {};
let size = icon.length;
for (const file of result.outputFiles) {
  const name = file.path.slice(join(dist, "assets").length + 1);
  names[name.split(".").pop()] = name;
  writeFileSync(join(dist, "assets", name), file.contents);
  size += file.contents.length;
}
writeFileSync(join(dist, "assets", iconName), icon);
const page = readFileSync(join(here, "src", "index.html"), "utf8")
  .replace("app.js", `assets/${names.js}`)
  .replace("app.css", `assets/${names.css}`)
  .replace("icon.svg", `assets/${iconName}`);
writeFileSync(join(dist, "index.html"), page);

const hash = createHash("sha256");
for (const name of sources()) {
  const content = readFileSync(join(here, name));
  hash.update(`${name} ${content.length}\n`).update(content);
}
writeFileSync(join(dist, "source.sha256"), `${hash.digest("hex")}\n`);

// What only the tests need.
cpSync(join(here, "node_modules", "axe-core", "axe.min.js"), join(here, "..", "testdata", "axe.min.js"));
console.log(`dist: ${names.js}, ${names.css}, ${Math.ceil((size + page.length) / 1024)} KiB in all`);
