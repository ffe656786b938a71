// A browser that notices what must not be: requests to anybody else, errors in the console, pages that are wider than the screen.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

export const base = process.env.HOLM_URL;
export const token = process.env.HOLM_TOKEN;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Has the test do something, and waits for its answer.
export async function ask(what) {
  process.stdout.write(`${what}\n`);
  const { value, done } = await lines.next();
  if (done) throw new Error(`nobody answers: ${what}`);
  return value;
}

// Runs a scenario in a browser of its own. `allowed` is what the console may say: a page that is asked for in vain is an error there.
export async function run(scenario, { allowed } = {}) {
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
  // The authority is the control plane's own: that programs believe it alone is tested elsewhere.
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 } });
  const wrong = [];
  const watch = (page) => {
    page.setDefaultTimeout(30_000);
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && !allowed?.test(message.text())) wrong.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => wrong.push(`script: ${error}`));
  };
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.origin !== base) wrong.push(`a request to ${url}`);
  });
  context.on("page", watch);
  const page = await context.newPage();
  try {
    await scenario(page, context, browser);
    assert.deepEqual(wrong, []);
  } catch (error) {
    process.stderr.write(`${page.url()}\n${error.stack}\n${wrong.join("\n")}\n`);
    await picture(page, "failed").catch(() => {});
    process.exitCode = 1;
  }
  await browser.close();
  process.stdin.destroy();
}

export async function signIn(page, secret = token) {
  await page.goto(`${base}/login`);
  await page.getByLabel("Operator’s token").fill(secret);
  await page.getByRole("button", { name: "Sign in" }).click();
}

// Nothing may be wider than the screen: who has to scroll sideways does not see half of it.
export async function fits(page) {
  const [wanted, there] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(wanted <= there, `${page.url()} is ${wanted} wide where there is room for ${there}`);
}

// For those who look at them.
export async function picture(page, name) {
  if (process.env.HOLM_PICTURES) await page.screenshot({ path: `${process.env.HOLM_PICTURES}/${name}.png`, fullPage: true });
}
