// Types into the page of examples/deploy/browser in a real browser, for test_deploy.py.
//
// A job, see browsing.mjs: {"url": URL, "texts": [TEXT, …]}. The answer: what the page shows once it
// has loaded and, where it takes any, after each text; and what it asked other servers for.

import { answerJobs } from "./browsing.mjs";

const PENDING = "…";

const shown = () => ({
  status: document.getElementById("status").textContent,
  probabilities: document.getElementById("probabilities").textContent,
  disabled: document.getElementById("features").disabled,
});

async function visit(browser, job) {
  const page = await browser.newPage();
  const foreign = [];
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(job.url).origin) {
      foreign.push(request.url());
    }
  });
  await page.goto(job.url);
  await page.waitForFunction(() => !document.getElementById("status").textContent.startsWith("load"));
  const states = [await page.evaluate(shown)];
  for (const text of states[0].disabled ? [] : job.texts) {
    await page.evaluate((pending) => {
      document.getElementById("probabilities").textContent = pending;
    }, PENDING);
    await page.locator("#features").fill(text);
    await page.waitForFunction(
      (pending) => document.getElementById("probabilities").textContent !== pending,
      PENDING,
    );
    states.push(await page.evaluate(shown));
  }
  await page.close();
  return { states, foreign };
}

await answerJobs(visit);
