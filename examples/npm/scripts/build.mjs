// Turns src/*.txt into dist/*.html: a build with no dependency, and the same bytes every time.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist", { recursive: true });
for (const name of readdirSync("src").sort()) {
  const [title, ...lines] = readFileSync(`src/${name}`, "utf8").trim().split("\n");
  const body = lines.filter(Boolean).map((line) => `<p>${escape(line)}</p>`).join("\n");
  const page = `<!doctype html>\n<title>${escape(title)}</title>\n<h1>${escape(title)}</h1>\n${body}\n`;
  writeFileSync(`dist/${name.replace(/\.txt$/, ".html")}`, page);
  console.log(`dist/${name.replace(/\.txt$/, ".html")}`);
}
