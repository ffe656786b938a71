// A rollout: seen as it goes, paused, and taken back from its page.
import assert from "node:assert/strict";
import { ask, base, fits, picture, run, signIn } from "./driver.mjs";

await run(async (page) => {
  await signIn(page);
  await page.goto(`${base}/rollouts`);
  assert.deepEqual(await page.locator("tbody tr td:first-child a").allTextContents(), ["r-2", "r-1"]);
  await fits(page);
  await page.goto(base);
  await page.getByRole("heading", { name: "Rollouts under way" }).waitFor();
  await page.getByRole("link", { name: "r-2" }).click();
  await page.waitForURL(`${base}/rollouts/r-2`);
  await page.locator("[data-live-state].on").waitFor();
  const stands = (what) => page.waitForFunction((what) => [...document.querySelectorAll("#rollout table:last-of-type td[data-name=Stands]")].map((cell) => cell.textContent.trim()).sort().join() === what, what);
  // The canary by its own word; live, without a reload.
  await stands("confirmed,waiting");
  assert.match(await page.locator("tr[aria-current=step]").textContent(), /1 \(now\)/);
  assert.ok((await page.locator(".bar-of rect.good").count()) > 0);
  await picture(page, "rollout");
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("#rollout .title .state", { hasText: "paused" }).waitFor();
  await page.getByRole("button", { name: "Go on" }).click();
  await page.locator("#rollout .title .state", { hasText: "running" }).waitFor();
  await page.getByLabel("Why").fill("the <canary> sings");
  await page.getByRole("button", { name: "Abort and roll back" }).click();
  await page.locator("#rollout .title .state", { hasText: "aborted" }).waitFor({ timeout: 60_000 });
  await stands("skipped,undone");
  assert.match(await page.locator("#rollout").textContent(), /Aborted by admin: the <canary> sings/);
  assert.equal(await page.getByRole("button", { name: "Abort and roll back" }).count(), 0);
  await page.setViewportSize({ width: 360, height: 800 });
  await fits(page);
  await picture(page, "rollout-360");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 1280, height: 800 });
  await picture(page, "rollout-dark");
  assert.equal(await ask("what runs"), "1.0.0 1.0.0");
  const missing = await page.goto(`${base}/rollouts/r-99`);
  assert.equal(missing.status(), 404);
  assert.equal(await page.locator("h1").textContent(), "Nothing here");
}, { allowed: /the server responded with a status of 404/ });
