// Drives the page of smx-export web in a real browser, for test_web.py.
//
// A job, see browsing.mjs ("shots" is a folder for screenshots): {"pages": [
//   {"url": URL, "width": 390, "height": 844, "dark": false, "touch": true, "steps": [STEP, …]}]}
//
// A step does one of: {"draw": [[x, y], …]} (a stroke in parts of the pad), {"click": SELECTOR},
// {"choose": PATH}, {"drop": PATH}, {"fill": [NUMBER or TEXT, …]},
// {"enter": {LABEL: TEXT}}, {"paste": TEXT}, {"shot": NAME},
// {"answer": URL, "with": BASE64} (before the page is opened: what a request is answered with).
// The answer: for each page what it shows after each step, and what went wrong meanwhile.

import { readFileSync } from "node:fs";
import { basename, join } from "node:path";

import { about, answerJobs } from "./browsing.mjs";

const QUIET_MS = 150; // an answer that has not changed for so long is the last one

/** What the page shows now. */
function shown() {
  const text = (id) => document.getElementById(id).innerText.replace(/\s+/g, " ").trim();
  const pad = document.getElementById("pad").getBoundingClientRect();
  const prediction = document.getElementById("prediction").getBoundingClientRect();
  return {
    badge: window.smx.badge,
    lastInput: window.smx.lastInput,
    lastProbs: window.smx.lastProbs,
    prediction: text("prediction"),
    bars: [...document.querySelectorAll("#bars li")].map((bar) => bar.innerText),
    winner: document.querySelector("#bars .winner .label")?.textContent ?? null,
    error: text("error"),
    hint: text("hint"),
    facts: text("facts"),
    distrusted: !document.getElementById("distrust").hidden,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    below: Math.max(0, Math.round(Math.max(pad.bottom, prediction.bottom) - innerHeight)),
  };
}

/** Wait until the page has answered everything it was asked. */
async function settled(page) {
  await page.evaluate(async (quiet) => {
    await window.smx.ready;
    const state = () => JSON.stringify([window.smx.lastInput, window.smx.lastProbs]);
    for (let before = null; before !== state(); ) {
      before = state();
      await new Promise((resolve) => setTimeout(resolve, quiet));
    }
  }, QUIET_MS);
}

async function draw(page, stroke) {
  const box = await page.locator("#pad").boundingBox();
  const points = stroke.map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
  await page.mouse.move(...points[0]);
  await page.mouse.down();
  for (const point of points.slice(1)) {
    await page.mouse.move(...point, { steps: 4 });
  }
  await page.mouse.up();
}

async function drop(page, path) {
  const content = readFileSync(path).toString("base64");
  const transfer = await page.evaluateHandle(([name, base64]) => {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name));
    return files;
  }, [basename(path), content]);
  await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
}

async function fill(page, values) {
  const fields = page.locator("#features input");
  for (const [i, value] of values.entries()) {
    await fields.nth(i).fill(String(value));
  }
}

/** Fill in fields by the text of their labels, as a hand would. */
async function enter(page, row) {
  for (const [name, text] of Object.entries(row)) {
    const label = page.locator("#features label").filter({ has: page.getByText(name, { exact: true }) });
    const choice = label.locator("select");
    await ((await choice.count()) ? choice.selectOption({ label: text }) : label.locator("input").fill(text));
  }
}

const actions = {
  draw,
  enter,
  drop,
  fill,
  click: (page, selector) => page.locator(selector).click(),
  choose: (page, path) => page.locator("#file").setInputFiles(path),
  paste: (page, text) => page.locator("#features textarea").fill(text),
  shot: (page, name) => page.screenshot({ path: join(about.shots, `${name}.png`) }),
};

async function visit(browser, { url, width = 1280, height = 800, dark, touch, steps = [] }) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: dark ? "dark" : "light",
    hasTouch: Boolean(touch),
    isMobile: Boolean(touch),
    deviceScaleFactor: touch ? 2 : 1,
    serviceWorkers: "block",
  });
  const page = await context.newPage();
  const problems = [];
  const foreign = [];
  page.on("console", (line) => {
    if (["error", "warning"].includes(line.type())) {
      problems.push(line.text());
    }
  });
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) {
      foreign.push(request.url());
    }
  });
  for (const step of steps.filter((step) => "answer" in step)) {
    const body = Buffer.from(step.with, "base64");
    await page.route(new URL(step.answer, url).href, (route) =>
      step.with === "" ? route.fulfill({ status: 404 }) : route.fulfill({ body }),
    );
  }
  await page.goto(url);
  await settled(page);
  const states = [await page.evaluate(shown)];
  for (const step of steps.filter((step) => !("answer" in step))) {
    const [[action, argument]] = Object.entries(step);
    await actions[action](page, argument);
    await settled(page);
    states.push(await page.evaluate(shown));
  }
  await context.close();
  return { states, problems, foreign };
}

await answerJobs(async (browser, { pages }) => {
  const results = [];
  for (const page of pages) {
    results.push(await visit(browser, page));
  }
  return { pages: results };
});
