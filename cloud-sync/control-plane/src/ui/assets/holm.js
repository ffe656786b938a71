// Live parts, plots, and a button that copies. Pages say by data attributes what they want, and work without any of it.
"use strict";

// Lines of a tail that are kept.
const LINES = 300;

for (const root of document.querySelectorAll("[data-live]")) live(root);
for (const figure of document.querySelectorAll("[data-plot]")) plot(figure);
for (const button of document.querySelectorAll("[data-copy]")) copy(button);

function live(root) {
  const state = root.querySelector("[data-live-state]");
  const pause = root.querySelector("[data-live-pause]");
  const held = [];
  let paused = false;
  const say = (text, on) => {
    state.textContent = text;
    state.classList.toggle("on", on);
  };
  const source = new EventSource(root.dataset.live);
  source.onopen = () => say("live", true);
  source.onerror = () => {
    const over = source.readyState === EventSource.CLOSED;
    say(over ? "Not live any more: load the page again." : "The connection is lost; trying again…", false);
  };
  // Each brings the id of an element and what the server has written for it.
  const on = (name, action) => source.addEventListener(name, (event) => {
    const { id, html } = JSON.parse(event.data);
    action(document.getElementById(id), html);
  });
  on("part", (part, html) => { part.innerHTML = html; });
  on("rows", (list, html) => {
    if (paused) {
      held.push(html);
      held.splice(0, held.length - LINES);
    } else {
      add(list, html);
    }
  });
  on("end", () => {
    source.close();
    location.reload();
  });
  if (pause) {
    pause.hidden = false;
    pause.onclick = () => {
      paused = !paused;
      pause.textContent = paused ? "Go on" : "Pause";
      if (!paused) for (const html of held.splice(0)) add(root.querySelector(".tail"), html);
    };
  }
}

function add(list, html) {
  const before = list.children.length;
  list.insertAdjacentHTML("afterbegin", html);
  for (let index = list.children.length - before - 1; index >= 0; index--) list.children[index].classList.add("fresh");
  while (list.children.length > LINES) list.lastElementChild.remove();
}

function copy(button) {
  button.hidden = false;
  button.onclick = async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  };
}

// A line for the mean, and a band for least and greatest, of each device.
function plot(figure) {
  const url = new URL(figure.dataset.plot, location.href);
  const whole = { since: url.searchParams.get("since"), until: url.searchParams.get("until") };
  const told = document.createElement("p");
  told.className = "told";
  told.setAttribute("role", "status");
  told.textContent = "Loading…";
  figure.append(told);
  let drawn, found;
  const load = async (since, until) => {
    for (const [name, value] of [["since", since], ["until", until]]) {
      if (value === null) url.searchParams.delete(name);
      else url.searchParams.set(name, value);
    }
    // A column of pixels shows one point.
    url.searchParams.set("buckets", Math.max(50, Math.min(2000, Math.floor(figure.clientWidth))));
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(answer.status === 401 ? "Your session has ended: load the page again." : `The answer was ${answer.status}.`);
    found = await answer.json();
    draw();
  };
  const attempt = (since, until) => load(since, until).catch((error) => { told.textContent = error.message; });
  const draw = () => {
    if (drawn) drawn.destroy();
    drawn = undefined;
    told.textContent = found.devices.length ? "" : "No numbers in this time.";
    if (found.devices.length) drawn = make(figure, found, (since, until) => attempt(since, until), () => attempt(whole.since, whole.until));
  };
  attempt(whole.since, whole.until);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (found) draw(); });
  let width = figure.clientWidth;
  new ResizeObserver(() => {
    if (drawn && figure.clientWidth !== width) {
      width = figure.clientWidth;
      drawn.setSize(size(figure));
    }
  }).observe(figure);
}

function size(figure) {
  const style = getComputedStyle(figure);
  return { width: Math.max(200, figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)), height: 300 };
}

function make(figure, found, zoom, reset) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const colours = ["--one", "--two", "--three", "--four"].map(colour);
  const times = [...new Set(found.devices.flatMap((line) => line.points.map((point) => point.time)))].sort((a, b) => a - b);
  const place = new Map(times.map((time, index) => [time, index]));
  const data = [times.map((time) => time / 1000)];
  const series = [{ value: (_, time) => time == null ? "–" : `${new Date(time * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`, label: "Time" }];
  const bands = [];
  found.devices.forEach((line, index) => {
    const columns = [[], [], []].map(() => new Array(times.length).fill(null));
    for (const point of line.points) {
      const at = place.get(point.time);
      [columns[0][at], columns[1][at], columns[2][at]] = [point.avg, point.max, point.min];
    }
    const [avg, max, min] = columns;
    const first = data.length;
    data.push(avg, max, min);
    const stroke = colours[index % colours.length];
    const value = (_, mean, __, at) => at == null || mean == null ? "–"
      : min[at] === max[at] ? short(mean) : `${short(mean)} (${short(min[at])} to ${short(max[at])})`;
    const edge = { stroke: "transparent", class: "band", points: { show: false } };
    // Where a device was silent for longer than a column, the line goes on: whoever wants to know looks at the figures.
    series.push({ label: line.device, stroke, width: 1.75, spanGaps: true, value });
    series.push({ ...edge, spanGaps: true }, { ...edge, spanGaps: true });
    bands.push({ series: [first + 1, first + 2], fill: `${stroke}38` });
  });
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  const options = {
    ...size(figure),
    series,
    bands,
    axes: [{ ...axis, values: ticks }, { ...axis, size: 64 }],
    scales: { x: { time: true } },
    // Times are in UTC everywhere.
    tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC"),
    cursor: { y: false, drag: { x: true, y: false, setScale: false } },
    hooks: {
      setSelect: [(u) => {
        if (u.select.width < 4) return;
        const at = (left) => Math.round(u.posToVal(left, "x") * 1000);
        zoom(at(u.select.left), at(u.select.left + u.select.width) + 1);
      }],
    },
  };
  const drawn = new uPlot(options, data, figure);
  drawn.over.addEventListener("dblclick", reset);
  // The legend says something before a pointer comes: the last values.
  drawn.setCursor({ left: drawn.valToPos(data[0][data[0].length - 1], "x"), top: 10 });
  return drawn;
}

// As times are written on the rest of the page, with the day where a new one begins.
function ticks(_, times, __, ___, step) {
  let before;
  return times.map((time) => {
    const [day, clock] = new Date(time * 1000).toISOString().split("T");
    const isNew = day !== before;
    before = day;
    const shown = step >= 86_400 ? day : clock.slice(0, step < 1 ? 12 : step < 60 ? 8 : 5);
    return isNew && step < 86_400 ? `${shown}\n${day}` : shown;
  });
}

function short(value) {
  return String(Number(value.toPrecision(6)));
}
