// A plot of many points: it is there, and it says what the API says.
import assert from "node:assert/strict";
import { base, picture, run, signIn } from "./driver.mjs";

await run(async (page) => {
  await signIn(page);
  const answered = page.waitForResponse((response) => response.url().includes("/v1/results"));
  await page.goto(`${base}/results?series=water-loss.flow&range=all`);
  const told = await (await answered).json();
  const points = told.devices[0].points;
  assert.ok(points.length > 500 && points.length <= 2000, `${points.length} points`);
  assert.equal(points.reduce((sum, point) => sum + point.count, 0), 50_000, "no row is left out");
  await page.waitForSelector(".plot canvas");
  // The line's colour is on the canvas, in most of its columns.
  const columns = await page.evaluate(() => {
    const canvas = document.querySelector(".plot canvas");
    const { width, height } = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const line = [0x0c, 0x6b, 0x72];
    let columns = 0;
    for (let x = 0; x < width; x++) {
      for (let y = 0; y < height; y++) {
        const at = (y * width + x) * 4;
        if (line.every((value, index) => Math.abs(data[at + index] - value) < 24) && data[at + 3] > 200) {
          columns++;
          break;
        }
      }
    }
    return columns / width;
  });
  assert.ok(columns > 0.6, `the line covers ${columns} of the plot`);
  const legend = () => page.locator(".u-legend .u-series:not(.band)").nth(1).locator(".u-value").textContent();
  const short = (value) => String(Number(value.toPrecision(6)));
  const written = ({ min, max, avg }) => (min === max ? short(avg) : `${short(avg)} (${short(min)} to ${short(max)})`);
  assert.equal(await legend(), written(points.at(-1)), "it begins with the last value");
  // Where the pointer is.
  const box = await page.locator(".plot .u-over").boundingBox();
  await page.mouse.move(box.x + box.width / 3, box.y + 20);
  await page.waitForFunction((last) => document.querySelectorAll(".u-legend .u-series:not(.band)")[1].querySelector(".u-value").textContent !== last, written(points.at(-1)));
  const time = await page.locator(".u-legend .u-series .u-value").first().textContent();
  const stamp = Date.parse(time.replace(" UTC", "Z").replace(" ", "T"));
  const point = points.find((point) => Math.floor(point.time / 1000) * 1000 === stamp);
  assert.ok(point, `${time} is no point`);
  assert.equal(await legend(), written(point));
  await picture(page, "plot");
  // Closer: the server is asked for the part, in more detail.
  const closer = page.waitForResponse((response) => response.url().includes("/v1/results"));
  await page.mouse.move(box.x + box.width * 0.4, box.y + 50);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 50, { steps: 5 });
  await page.mouse.up();
  const part = await (await closer).json();
  assert.ok(part.width < told.width / 5, `${part.width} after ${told.width}`);
  await page.waitForSelector(".plot canvas");
  const whole = page.waitForResponse((response) => response.url().includes("/v1/results"));
  await page.locator(".plot .u-over").dblclick();
  assert.equal((await (await whole).json()).width, told.width);
  // The rows themselves.
  const downloading = page.waitForEvent("download");
  await page.getByRole("link", { name: "CSV" }).click();
  const download = await downloading;
  const { readFile } = await import("node:fs/promises");
  const rows = (await readFile(await download.path(), "utf8")).trim().split("\r\n");
  assert.equal(rows.length, 50_001, "all rows, and a head");
  assert.equal(rows[0], "device,stream,epoch,sequence,time,value");
  // As one waits for it who looks: from the click to the drawn plot.
  await page.emulateMedia({ colorScheme: "dark" });
  await page.goto(`${base}/results?series=water-loss.flow&range=all`);
  await page.waitForSelector(".plot canvas");
  await picture(page, "plot-dark");
});
