// Every page: by keyboard, on a small screen, in the dark, without a script.
import assert from "node:assert/strict";
import { base, fits, picture, run, signIn, token } from "./driver.mjs";

const PAGES = [
  ["/", "Overview"],
  ["/fleet", "Fleet"],
  ["/fleet?q=pi&group=greenhouse&state=online", "Fleet"],
  ["/devices/pi1", "pi1"],
  ["/devices/pi1/revoke", "Revoke pi1?"],
  ["/rollouts", "Rollouts"],
  ["/results", "Results"],
  ["/results?series=water-loss.flow&range=all", "Results"],
  ["/dead-letters", "Dead letters"],
  ["/devices/pi1/dead-letters", "Dead letters of pi1"],
  ["/functions", "Functions"],
  ["/enrol", "Enrol a device"],
  ["/audit", "Audit"],
];

await run(async (page, _, browser) => {
  // By keyboard alone, from the sign-in to a device.
  await page.goto(`${base}/devices/pi1`);
  assert.equal(new URL(page.url()).pathname, "/login");
  await picture(page, "login");
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${base}/devices/pi1`);
  await page.goto(`${base}/fleet`);
  await page.keyboard.press("Tab");
  const focused = () => page.evaluate(() => {
    const style = getComputedStyle(document.activeElement);
    return { text: document.activeElement.textContent.trim(), outline: style.outlineStyle, left: document.activeElement.getBoundingClientRect().left };
  });
  const skip = await focused();
  assert.equal(skip.text, "Skip to the content");
  assert.ok(skip.left >= 0, "the skip link is seen when it has the focus");
  await page.keyboard.press("Enter");
  for (let steps = 0; ; steps++) {
    assert.ok(steps < 20, "no way to the device by Tab");
    await page.keyboard.press("Tab");
    const found = await focused();
    assert.notEqual(found.outline, "none", `the focus is not seen on ${found.text}`);
    if (found.text === "pi1") break;
  }
  await page.keyboard.press("Enter");
  await page.waitForURL(`${base}/devices/pi1`);

  for (const width of [1280, 360]) {
    await page.setViewportSize({ width, height: 800 });
    for (const [index, [path, title]] of PAGES.entries()) {
      await page.emulateMedia({ colorScheme: "light" });
      await page.goto(base + path);
      assert.equal(await page.locator("h1").first().textContent(), title);
      assert.equal(await page.locator("html").getAttribute("lang"), "en");
      const unnamed = await page.evaluate(() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
        .filter((field) => field.labels.length === 0).map((field) => field.outerHTML));
      assert.deepEqual(unnamed, [], "every field has a label");
      for (const scheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme: scheme });
        await fits(page);
        await contrast(page, scheme);
        await picture(page, `${index}-${title.replace(/\W+/g, "-").toLowerCase()}-${scheme}-${width}`);
      }
    }
  }

  // Without a script: everything but plots and what is live.
  const plain = await browser.newContext({ javaScriptEnabled: false, ignoreHTTPSErrors: true });
  const simple = await plain.newPage();
  await signIn(simple);
  for (const [path, title] of PAGES) {
    await simple.goto(base + path);
    assert.equal(await simple.locator("h1").first().textContent(), title);
  }
  await simple.goto(`${base}/results?series=water-loss.flow&range=all`);
  assert.match(await simple.locator("table.figures tbody").textContent(), /2\.5/);
  assert.match(await simple.locator("figure").textContent(), /needs a script/);
  await simple.goto(`${base}/devices/pi1`);
  assert.ok((await simple.locator("#tail li").count()) > 0, "what came is there, if not live");
  await simple.goto(`${base}/enrol`);
  await simple.getByRole("button", { name: "Make a token" }).click();
  assert.match(await simple.locator("#command").textContent(), /^holmd enrol/);
  await plain.close();

  // Out again, and then nobody is in.
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(`${base}/login`);
  await page.goto(`${base}/fleet`);
  assert.equal(new URL(page.url()).pathname, "/login");
  await signIn(page);
  await page.waitForURL(`${base}/`);
});

// WCAG 2, 1.4.3: text stands out from what is behind it by 4.5 to 1.
async function contrast(page, scheme) {
  const found = await page.evaluate(() => {
    const channel = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const rgb = (text) => text.match(/[\d.]+/g).map(Number);
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = getComputedStyle(at).backgroundColor;
        const parts = rgb(colour);
        if (colour.startsWith("rgb") && (parts.length < 4 || parts[3] === 1)) return parts;
      }
      return [255, 255, 255];
    };
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      if (!own || !element.checkVisibility()) continue;
      const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < 4.5) poor.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return { poor, page: getComputedStyle(document.body).backgroundColor };
  });
  assert.deepEqual(found.poor, [], `what stands out too little (${scheme})`);
  const [red] = found.page.match(/\d+/g).map(Number);
  assert.ok(scheme === "dark" ? red < 60 : red > 200, `the page is ${found.page} when it is ${scheme}`);
}
