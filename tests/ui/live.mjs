// What is live: a result, a log line and a gap as they come, and a node that is killed.
import assert from "node:assert/strict";
import { ask, base, picture, run, signIn } from "./driver.mjs";

await run(async (page, context) => {
  await signIn(page);
  await page.goto(`${base}/devices/pi1`);
  await page.locator("[data-live-state].on").waitFor();
  assert.equal(await page.locator("#state .state").first().textContent(), "online");
  const overview = await context.newPage();
  await overview.goto(base);
  await overview.locator("[data-live-state].on").waitFor();
  const online = () => overview.locator(".tile .figure").first().textContent();
  assert.equal(await online(), "2");

  // An event on the node's street, to a line on this page.
  await isSwift("a result", async (round) => {
    await ask("publish");
    await page.locator("#tail li.result .value", { hasText: new RegExp(`^${round}$`) }).waitFor();
  });
  assert.equal(await page.locator("#tail li .stream").first().textContent(), "counter.n");

  // Markup from a device is text.
  await page.goto(`${base}/devices/pi2`);
  await page.locator("[data-live-state].on").waitFor();
  await isSwift("a log line", async (round) => {
    await ask("log");
    await page.locator("#tail li.log .value", { hasText: "<img src=x onerror=alert(1)>" }).nth(round - 1).waitFor();
  });
  assert.match(await page.locator("#tail li.gap .value").first().textContent(), /^7 dropped on the device/);
  assert.equal(await page.locator("#tail img").count(), 0);
  await picture(page, "tail");

  // Paused, and on again.
  await page.getByRole("button", { name: "Pause" }).click();
  const lines = await page.locator("#tail li").count();
  await ask("log");
  const other = await context.newPage();
  await other.goto(`${base}/devices/pi2`);
  await other.locator("#tail li.log").nth(3).waitFor();
  await other.close();
  assert.equal(await page.locator("#tail li").count(), lines);
  await page.getByRole("button", { name: "Go on" }).click();
  await page.waitForFunction((lines) => document.querySelectorAll("#tail li").length > lines, lines);

  // Killed: seen on all that is open, without a reload.
  await page.goto(`${base}/devices/pi1`);
  await page.locator("[data-live-state].on").waitFor();
  await ask("kill");
  await page.locator("#state .state.bad", { hasText: "offline" }).waitFor();
  await overview.waitForFunction(() => document.querySelector(".tile .figure").textContent === "1");
  await page.goto(`${base}/fleet?state=offline`);
  assert.deepEqual(await page.locator("tbody a").allTextContents(), ["pi1"]);

  // The control plane goes and comes back, and so does what is live.
  await page.goto(`${base}/devices/pi2`);
  await page.locator("[data-live-state].on").waitFor();
  await ask("restart");
  await page.locator("[data-live-state].on").waitFor();
  await page.waitForFunction(() => document.querySelector("#state .state").textContent === "offline");

  // Signed out elsewhere: what is live ends with the session.
  await overview.reload();
  await overview.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(/\/login/);
}, { allowed: /Failed to load resource: net::ERR_|ERR_CONNECTION|ERR_INCOMPLETE_CHUNKED/ });

// Within two seconds at least once of three times: on a machine that is busy otherwise, one of them may be slow.
async function isSwift(what, action) {
  const took = [];
  for (let round = 1; round <= 3; round++) {
    const began = Date.now();
    await action(round);
    took.push(Date.now() - began);
  }
  process.stderr.write(`${what} was seen after ${took.join(", ")} ms\n`);
  assert.ok(Math.min(...took) < 2_000, `${what} took ${took} ms`);
}
