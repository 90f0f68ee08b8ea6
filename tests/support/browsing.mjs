// A browser that takes jobs until its standard input ends: one line of JSON a job, one an answer.
//
// The driver's first argument is JSON: {"playwright": FOLDER, "chromium": PATH, …}.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

export const about = JSON.parse(process.argv[2]);

/** Answer each job with what `visit(browser, job)` gives, or with {"failed": why}. */
export async function answerJobs(visit) {
  const { chromium } = createRequire(import.meta.url)(about.playwright);
  const browser = await chromium.launch({
    executablePath: about.chromium,
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
  try {
    for await (const line of createInterface({ input: process.stdin })) {
      const answer = await visit(browser, JSON.parse(line)).catch((error) => ({
        failed: error.stack,
      }));
      process.stdout.write(`${JSON.stringify(answer)}\n`);
    }
  } finally {
    await browser.close();
  }
}
