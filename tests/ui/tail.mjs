// A line that a function writes to its log while somebody looks at its device, and how long it takes from the publish that starts the function.
import assert from "node:assert/strict";
import { ask, base, picture, run, signIn } from "./driver.mjs";

const ROUNDS = 7;

await run(async (page) => {
  await signIn(page);
  await page.goto(`${base}/devices/pi1`);
  await page.locator("[data-live-state].on").waitFor();
  // Noted when the page has it, and not when somebody comes to look.
  await page.evaluate(() => {
    window.seen = {};
    new MutationObserver(() => {
      for (const value of document.querySelectorAll("#tail li.log .value")) {
        const found = value.textContent.match(/line \d+$/);
        if (found) window.seen[found[0]] ??= Date.now();
      }
    }).observe(document.querySelector("#tail"), { childList: true, subtree: true });
  });
  const took = [];
  for (let round = 1; round <= ROUNDS; round++) {
    const published = Number(await ask(`publish line ${round}`));
    const seen = await page.waitForFunction((line) => window.seen[line], `line ${round}`);
    took.push(Number(await seen.jsonValue()) - published);
  }
  assert.equal(await page.locator("#tail li.log").count(), ROUNDS, "each line once");
  assert.equal(await page.locator("#tail li.log .stream").first().textContent(), "speaker");
  assert.match(await page.locator("#tail li.log .value").first().textContent(), new RegExp(`^info line ${ROUNDS}$`));
  await picture(page, "tail-log");
  took.sort((a, b) => a - b);
  process.stderr.write(`a line of a function was seen ${took.join(", ")} ms after its event was published\n`);
  // On a machine that is busy otherwise, some may be slow.
  assert.ok(took[Math.floor(ROUNDS / 2)] < 2_000, `half of them took longer than 2 s: ${took}`);
});
