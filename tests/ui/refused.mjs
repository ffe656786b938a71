// What is not right is told on a page that says what to do.
import assert from "node:assert/strict";
import { ask, base, picture, run, signIn } from "./driver.mjs";

await run(async (page, context) => {
  await signIn(page, "no-such-token");
  assert.match(await page.getByRole("alert").textContent(), /lets nobody in/);
  assert.equal(await page.title(), "Sign in · Holm");
  await signIn(page);
  await page.waitForURL(`${base}/`);

  for (const [path, title, status] of [
    ["/devices/nobody", "No such device", 404],
    ["/devices/%3Cscript%3E", "No such device", 404],
    ["/no/such/page", "Nothing here", 404],
    ["/fleet?state=asleep", "That did not work", 400],
    ["/fleet?group=a%20b", "That did not work", 400],
    ["/results?series=a&range=2h&device=%2F", "That did not work", 400],
    ["/logout", "Not this way", 405],
  ]) {
    const response = await page.goto(base + path);
    assert.equal(response.status(), status, path);
    assert.equal(await page.locator("h1").textContent(), title, path);
    assert.ok(await page.locator("a.button").count() > 0, "there is somewhere to go");
  }
  await picture(page, "refused");

  // A form of another session.
  await page.goto(`${base}/enrol`);
  await page.locator("form.filters input[name=proof]").evaluate((field) => { field.value = "forged"; });
  await page.getByRole("button", { name: "Make a token" }).click();
  assert.equal(await page.locator("h1").textContent(), "This form was not taken");

  // The session is over: the way back leads to where one was.
  const cookies = await context.cookies();
  const cookie = cookies.find(({ name }) => name === "__Host-holm");
  assert.ok(cookie.httpOnly && cookie.secure && cookie.sameSite === "Strict", JSON.stringify(cookie));
  await page.goto(`${base}/audit`);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(`${base}/login`);
  await context.addCookies([cookie]);
  await page.goto(`${base}/audit`);
  assert.match(await page.getByRole("alert").textContent(), /session has ended/);

  // A viewer looks.
  const viewer = await ask("viewer");
  await page.getByLabel("Operator’s token").fill(viewer);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${base}/audit`);
  await page.goto(`${base}/enrol`);
  assert.equal(await page.getByRole("button", { name: "Make a token" }).count(), 0);
  await page.goto(`${base}/devices/pi1`);
  assert.equal(await page.getByRole("link", { name: "Revoke this device…" }).count(), 0);
  await page.goto(`${base}/devices/pi1/revoke`);
  await page.getByRole("button", { name: "Revoke pi1" }).click();
  assert.equal(await page.locator("h1").textContent(), "Only admins may do this");
  // Until the token is ended, and with it the session.
  await ask("end viewer");
  await page.goto(`${base}/fleet`);
  assert.match(await page.getByRole("alert").textContent(), /session has ended/);
}, { allowed: /the server responded with a status of (400|401|403|404|405)/ });
