// Check pages in a browser: axe's rules, errors on the console, requests to the outside, sideways scrolling.
//
//     mkdir -p artifacts/axe && cd artifacts/axe && npm install axe-core puppeteer-core
//     CHROMIUM=/usr/bin/chromium node ../../docs/site/axe.mjs ../appendix/README.html …
//
// It prints a line for each finding and leaves with 1 if there is one. Both packages are looked for in the working folder.

import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(resolve("axe.mjs"));
const puppeteer = require("puppeteer-core");
const axe = require.resolve("axe-core/axe.min.js");
const WIDTHS = { desktop: 1280, phone: 390 };

async function findings(browser, file, width) {
  const page = await browser.newPage();
  const found = [];
  page.on("console", (said) => said.type() === "error" && found.push(`console: ${said.text()}`));
  page.on("pageerror", (error) => found.push(`console: ${error.message}`));
  page.on("request", (asked) => /^(file|data|blob):/.test(asked.url()) || found.push(`outside: ${asked.url()}`));
  await page.setViewport({ width, height: 900 });
  await page.setBypassCSP(true); // the library's pages allow no script, which axe is
  await page.goto(pathToFileURL(file));
  await page.addScriptTag({ path: axe });
  const { violations } = await page.evaluate(() => window.axe.run());
  for (const { id, impact, nodes } of violations) {
    found.push(`${id} (${impact}) × ${nodes.length}, such as ${nodes[0].target.join(" ")}`);
  }
  const scrolls = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  if (scrolls) found.push("scrolls sideways");
  await page.close();
  return found;
}

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--allow-file-access-from-files"],
});
for (const file of process.argv.slice(2)) {
  for (const [name, width] of Object.entries(WIDTHS)) {
    for (const line of await findings(browser, file, width)) {
      console.log(`${file}, ${name}: ${line}`);
      process.exitCode = 1;
    }
  }
}
await browser.close();
