// A token that is made here lets a device in.
import assert from "node:assert/strict";
import { ask, base, picture, run, signIn } from "./driver.mjs";

await run(async (page) => {
  await signIn(page);
  await page.goto(`${base}/enrol`);
  await page.getByLabel("Group").fill("cellar");
  await page.getByRole("button", { name: "Make a token" }).click();
  const command = await page.locator("#command").textContent();
  assert.match(command, /^holmd enrol --cloud https:\/\/127\.0\.0\.1:\d+ --token \S{43} --ca-hash [0-9a-f]{64}$/);
  await picture(page, "enrolled");
  assert.equal(await ask(`run ${command}`), "done");
  await page.goto(`${base}/fleet?group=cellar`);
  assert.deepEqual(await page.locator("tbody a").allTextContents(), ["pi9"]);
  // It is shown once.
  await page.goto(`${base}/enrol`);
  assert.equal(await page.locator("#command").count(), 0);
  assert.match(await page.locator("tbody tr").first().textContent(), /used/);
  // And it was written down who did it.
  await page.goto(`${base}/audit`);
  const deeds = await page.locator("tbody tr").allTextContents();
  assert.ok(deeds.some((deed) => deed.includes("admin") && deed.includes("make an enrolment token")), deeds.join("\n"));
  // Revoked from its page.
  await page.goto(`${base}/devices/pi9`);
  await page.getByRole("link", { name: "Revoke this device…" }).click();
  await page.getByRole("button", { name: "Revoke pi9" }).click();
  await page.waitForURL(`${base}/devices/pi9`);
  assert.equal(await page.locator("#state .state").first().textContent(), "revoked");
});
