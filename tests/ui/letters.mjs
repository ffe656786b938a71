// Dead letters on their pages: seen, replayed after a fix, looked at, dropped; and who may not, and when it cannot be.
import assert from "node:assert/strict";
import { ask, base, fits, picture, run, signIn } from "./driver.mjs";

await run(async (page, context) => {
  const rows = (page) => page.locator("tbody td[data-name=Id]").allTextContents();
  const replay = (page, id) => page.getByRole("button", { name: `Replay dead letter ${id}` });
  const letters = `${base}/devices/pi1/dead-letters`;
  await signIn(page);
  await page.goto(`${base}/dead-letters`);
  assert.equal(await page.locator("td[data-name='Dead letters']").textContent(), "4");
  await page.getByRole("main").getByRole("link", { name: "pi1" }).click();
  await page.waitForURL(letters);
  assert.deepEqual(await rows(page), ["4", "3", "2", "1"]);
  assert.match(await page.locator("tbody tr").last().textContent(), /picky.*reject: x+/s);
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme });
    for (const width of [360, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      await fits(page);
      await picture(page, `letters-${colorScheme}-${width}`);
    }
  }
  // Opened now, and old by the time that it is used.
  const old = await context.newPage();
  await old.goto(letters);

  // It is mended, and the letter is replayed, by keyboard.
  await ask("mend");
  await replay(page, 1).focus();
  await page.keyboard.press("Enter");
  await page.locator("#moved li", { hasText: "Replayed 1" }).waitFor();
  assert.equal(new URL(page.url()).pathname, "/devices/pi1/dead-letters");
  assert.deepEqual(await rows(page), ["4", "3", "2"]);
  assert.equal(await ask("ran"), "1 0");
  // From the old page once more: it is gone, and runs no more.
  await replay(old, 1).click();
  await old.locator("#moved li", { hasText: "Not there any more: 1" }).waitFor();
  assert.equal(await ask("ran"), "1 0");

  // Looked at, and dropped.
  await page.getByRole("link", { name: "Look at dead letter 2" }).click();
  await page.waitForURL(`${letters}/2`);
  assert.equal(await page.locator("#data").textContent(), "<img src=x onerror=alert(1)> two");
  assert.equal(await page.locator("#content img").count(), 0);
  await page.setViewportSize({ width: 360, height: 900 });
  await fits(page);
  await picture(page, "letter-360");
  await page.setViewportSize({ width: 1280, height: 900 });
  await picture(page, "letter");
  await page.getByRole("button", { name: "Drop it for good" }).click();
  await page.locator("#moved li", { hasText: "Dropped 2" }).waitFor();
  assert.deepEqual(await rows(page), ["4", "3"]);
  assert.equal(await ask("left"), "4 3");
  const missing = await page.goto(`${letters}/2`);
  assert.equal(missing.status(), 404);
  assert.match(await page.locator("main").textContent(), /no dead letter 2/);
  await page.getByRole("link", { name: "All dead letters of it" }).click();

  // All that are left, and then there is nothing to see.
  await page.getByRole("button", { name: "Replay all of picky" }).click();
  await page.locator("#moved li", { hasText: "Replayed 3 4" }).waitFor();
  await page.getByText("It has none.").waitFor();
  assert.equal(await ask("ran"), "3 0");
  await page.goto(`${base}/dead-letters`);
  await page.getByText("No device has reported any.").waitFor();

  // It was written down who did it.
  await page.goto(`${base}/audit`);
  const deeds = await page.locator("tbody tr").allTextContents();
  for (const deed of ["admindrop dead letterspi1: 2", "adminreplay dead letterspi1: 1", "adminreplay dead letterspi1: of picky up to 4"]) {
    assert.ok(deeds.some((found) => found.includes(deed)), `${deed}\n${deeds.join("\n")}`);
  }

  // A viewer sees that there is one, and no more.
  await ask("break");
  await old.goto(letters);
  assert.deepEqual(await rows(old), ["5"]);
  const viewer = await ask("viewer");
  const other = await (await page.context().browser().newContext({ ignoreHTTPSErrors: true })).newPage();
  await signIn(other, viewer);
  await other.goto(letters);
  assert.deepEqual(await rows(other), ["5"]);
  assert.equal(await other.locator("main form, main .button").count(), 0);
  for (const verb of ["replay", "drop"]) {
    const status = await other.evaluate(async ([path, letter]) => {
      const proof = document.querySelector("input[name=proof]").value;
      return (await fetch(path, { method: "POST", body: new URLSearchParams({ proof, letter }) })).status;
    }, [`${letters}/${verb}`, "5"]);
    assert.equal(status, 403, verb);
  }
  assert.equal((await other.goto(`${letters}/5`)).status(), 403);
  assert.equal(await other.locator("h1").textContent(), "Only admins may do this");
  // Nor is a form taken that is not of the admin's own page.
  const forged = await page.evaluate(async (path) => (await fetch(path, { method: "POST", body: new URLSearchParams({ letter: "5" }) })).status, `${letters}/drop`);
  assert.equal(forged, 403);
  assert.equal(await ask("left"), "5");

  // The device is gone: what it said last is shown, and nothing can be done.
  await ask("kill");
  await replay(old, 5).click();
  assert.match(await old.locator("main").textContent(), /Pi1 is not connected/i);
  await old.getByRole("link", { name: "All dead letters of it" }).click();
  await old.waitForURL(letters);
  await old.getByText("it does not answer now").waitFor();
  assert.deepEqual(await rows(old), ["5"]);
  assert.equal(await old.locator("main form").count(), 0);
}, { allowed: /the server responded with a status of (403|404|409)/ });
