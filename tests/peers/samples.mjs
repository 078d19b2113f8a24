// Looks at pages with Chromium and axe: in both themes, on a telephone and on a desk, with script and as they are without.
//
//   node samples.mjs FOLDER
//
// FOLDER has the pages, as *.html, and style.css. What is found is printed, a line each; the last line is `looked N times`.

import { createRequire } from "node:module";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const peers = createRequire(join(process.env.PEERS, "package.json"));
const { chromium } = peers("playwright-core");
const axe = readFileSync(peers.resolve("axe-core/axe.min.js"), "utf8");
const [folder] = process.argv.slice(2);
const names = ["chromium", "chromium-browser", "google-chrome"];
const program = process.env.PATH.split(":").flatMap((path) => names.map((name) => join(path, name))).find(existsSync);
const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

const style = `<style>${readFileSync(join(folder, "style.css"), "utf8")}</style>`;
// What strangers wrote is a word without an end.
const whole = (html) => html
  .replace(/<link rel="stylesheet"[^>]*>/, style)
  .replace(/<script src[^>]*><\/script>/, "")
  .replace(/&lt;script.*?7\*7 }}/g, "W".repeat(200));
const pages = readdirSync(folder)
  .filter((file) => file.endsWith(".html"))
  .map((file) => [file, whole(readFileSync(join(folder, file), "utf8"))]);

const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox"] });
let looked = 0;
const looks = ["light", "dark"].flatMap((theme) => [360, 1280].map((width) => ({ theme, width })));
for (const { theme, width } of looks) {
  const context = await browser.newContext({ colorScheme: theme, viewport: { width, height: 800 } });
  const page = await context.newPage();
  for (const [file, html] of pages) {
    // axe needs script, so what stands there without is shown beside it.
    const without = html.replaceAll("<noscript>", "<div>").replaceAll("</noscript>", "</div>");
    for (const text of html === without ? [html] : [html, without]) {
      await page.setContent(text);
      await page.evaluate(axe);
      const { violations } = await page.evaluate((values) => window.axe.run(document, { runOnly: values }), tags);
      const where = `${file} ${theme} ${width}${text === html ? "" : " without script"}`;
      for (const { id, nodes } of violations) console.log(`${where}: ${id}: ${nodes[0].html}`);
      const wider = await page.locator("html").evaluate((root) => root.scrollWidth - window.innerWidth);
      if (wider > 0) console.log(`${where}: ${wider} px wider than the window`);
      looked += 1;
    }
  }
  await context.close();
}
await browser.close();
console.log(`looked ${looked} times`);
