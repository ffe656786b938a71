#!/usr/bin/env python3
"""Reference implementation of functions/examples/water-loss: see DESIGN.md there.

    water_loss_reference.py detect    prints what is detected in water-flow.csv, one JSON object per line
    water_loss_reference.py oracle    checks it against the known events; exit code 1 if anything differs
    water_loss_reference.py inject    precision and recall on injected leaks, as a table
    water_loss_reference.py series SEED FACTOR   prints the series with leaks injected, as CSV with a column `leak`

Standard library only. The detector reads one reading at a time and keeps a few numbers in between.
"""

import csv
import datetime
import json
import pathlib
import random
import sys

CSV = pathlib.Path(__file__).with_name("water-flow.csv")

WINDOW = 8          # readings that the level is the median of
LEARNING = 4        # readings before anything is judged
LOSS = 2 / 3        # of the level: below it, water is lost
LEAK = 0.975        # of the level: below it twice in a row, water leaks
BACK = 0.985        # of the level: from here on, a leak is over
PEAK = 1.05         # of the level: above it, a peak
CONFIRM = 2         # readings that make a leak
NEW_HIGH = 6        # high readings in a row that make a new level
PATIENCE = 48       # readings after which a leak is the new level
RECOVERY = 24       # readings that a recovery may take before it is called a leak
GAP_SECONDS = 5400  # more than this between readings is a gap


class Detector:
    def __init__(self):
        self.ring = []       # the last WINDOW usual readings, oldest first
        self.last = None     # time of the last reading, in seconds
        self.mode = "usual"  # usual, loss, recovery, leak
        self.since = 0       # when the mode began
        self.lowest = 0.0    # the lowest reading of a loss or leak
        self.low = 0         # low readings in a row, or readings in this mode
        self.high = 0        # high readings in a row
        self.first_low = 0   # when the low readings began

    def level(self):
        ordered = sorted(self.ring)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    def enter(self, mode, since, lowest=0.0):
        self.mode, self.since, self.lowest, self.low, self.high = mode, since, lowest, 0, 0

    def learn(self, flow):
        self.ring = (self.ring + [flow])[-WINDOW:]

    def relearn(self, time, flow):
        self.ring = [flow]
        self.enter("usual", time)

    def reading(self, time, flow):
        """Takes a reading; returns alerts. Readings that are not later than the last one are passed over."""
        alerts = []
        if self.last is not None:
            if time <= self.last:
                return alerts
            if time - self.last > GAP_SECONDS:
                alerts.append({"kind": "gap", "since": self.last, "until": time})
        previous, self.last = self.last, time
        if len(self.ring) < LEARNING:
            self.learn(flow)
            return alerts
        level = self.level()
        if self.mode != "loss" and flow < LOSS * level:
            if self.mode == "leak":
                alerts.append({"kind": "leak-end", "since": self.since, "until": previous, "lowest": self.lowest})
            self.enter("loss", time, flow)
            alerts.append({"kind": "loss-begin", "since": time, "flow": flow, "level": level})
        elif self.mode == "usual":
            self.usual(time, flow, level, alerts)
        elif self.mode == "loss":
            self.lowest = min(self.lowest, flow)
            if flow >= LOSS * level:
                alerts.append({"kind": "loss-end", "since": self.since, "until": previous, "lowest": self.lowest})
                self.enter("recovery", time)
                self.recovery(time, flow, level, alerts)
        elif self.mode == "recovery":
            self.recovery(time, flow, level, alerts)
        else:
            self.leak(time, flow, level, previous, alerts)
        return alerts

    def usual(self, time, flow, level, alerts):
        if flow < LEAK * level:
            if self.low == 0:
                self.first_low, self.lowest = time, flow
            self.low += 1
            self.high = 0
            self.lowest = min(self.lowest, flow)
            if self.low == CONFIRM:
                alerts.append({"kind": "leak", "since": self.first_low, "flow": flow, "level": level})
                self.enter("leak", self.first_low, self.lowest)
        elif flow > PEAK * level:
            if self.high == 0:
                alerts.append({"kind": "peak", "since": time, "flow": flow, "level": level})
            self.low = 0
            self.high += 1
            if self.high == NEW_HIGH:
                self.relearn(time, flow)
        else:
            self.low = self.high = 0
            self.learn(flow)

    def recovery(self, time, flow, level, alerts):
        self.low += 1
        if flow >= LEAK * level:
            # What was usual before a loss need not be so after it.
            self.relearn(time, flow)
        elif self.low == RECOVERY:
            alerts.append({"kind": "leak", "since": self.since, "flow": flow, "level": level})
            self.enter("leak", self.since, flow)

    def leak(self, time, flow, level, previous, alerts):
        self.low += 1
        if flow >= BACK * level:
            alerts.append({"kind": "leak-end", "since": self.since, "until": previous, "lowest": self.lowest})
            self.enter("usual", time)
            self.usual(time, flow, level, alerts)
            return
        self.lowest = min(self.lowest, flow)
        if self.low == PATIENCE:
            alerts.append({"kind": "leak-end", "since": self.since, "until": time, "lowest": self.lowest})
            self.relearn(time, flow)


def readings():
    with CSV.open() as file:
        for row in csv.DictReader(file):
            yield row["Time"], float(row["Water flow [l/s]"])


def seconds(text):
    return int(datetime.datetime.fromisoformat(text).timestamp())


def run(series):
    detector, alerts = Detector(), []
    for time, flow in series:
        alerts.extend(detector.reading(seconds(time), flow))
    return alerts


LOSSES = [
    ("2022-03-24T09:00:00+01:00", "2022-03-24T23:00:00+01:00"),
    ("2022-03-29T09:00:00+02:00", "2022-03-29T18:00:00+02:00"),
    ("2022-04-27T16:00:00+02:00", "2022-04-28T04:00:00+02:00"),
]
PEAK_AT = "2022-04-03T06:00:00+02:00"


def oracle():
    alerts = run(readings())
    of = lambda kind: [alert for alert in alerts if alert["kind"] == kind]
    losses = [(seconds(a), seconds(b)) for a, b in LOSSES]
    checks = {
        "three losses, to the hour": [(alert["since"], alert["until"]) for alert in of("loss-end")] == losses,
        "each is told when it begins": [alert["since"] for alert in of("loss-begin")] == [a for a, _ in losses],
        "one peak, at 109.68": [(alert["since"], alert["flow"]) for alert in of("peak")] == [(seconds(PEAK_AT), 109.68)],
        "ten gaps, the longest of 32 h": len(of("gap")) == 10
        and max(alert["until"] - alert["since"] for alert in of("gap")) == 32 * 3600,
        "no leak": not of("leak") and not of("leak-end"),
    }
    for name, right in checks.items():
        print("ok   " if right else "WRONG", name)
    return all(checks.values())


def inject(series, seed, factor, count=8):
    """Leaks at random hours: for 6 to 24 readings, the flow that arrives is `factor` of what it was."""
    generator = random.Random(seed)
    day = 86400
    taken = [(seconds(a) - day, seconds(b) + day) for a, b in LOSSES] + [(seconds(PEAK_AT) - day // 2, seconds(PEAK_AT) + day // 2)]
    times = [seconds(time) for time, _ in series]
    flows = [flow for _, flow in series]
    leaks = []
    while len(leaks) < count:
        start = generator.randrange(24, len(series) - 30)
        end = start + generator.randint(6, 24) - 1
        if all(times[end] < a or times[start] > b for a, b in taken):
            taken.append((times[start] - day, times[end] + day))
            leaks.append((times[start], times[end]))
            for index in range(start, end + 1):
                flows[index] = round(flows[index] * factor, 2)
    return [(time, flow) for (time, _), flow in zip(series, flows)], leaks


def score(factor, seeds):
    series = list(readings())
    found = missed = false = late = ends = spoiled = 0
    for seed in seeds:
        changed, leaks = inject(series, seed, factor)
        alerts = run(changed)
        spoiled += [(a["since"], a["until"]) for a in alerts if a["kind"] == "loss-end"] != [(seconds(a), seconds(b)) for a, b in LOSSES]
        told = [alert["since"] for alert in alerts if alert["kind"] == "leak"]
        over = {alert["since"]: alert["until"] for alert in alerts if alert["kind"] == "leak-end"}
        for start, end in leaks:
            hits = [since for since in told if start <= since <= end]
            found, missed = found + bool(hits), missed + (not hits)
            if hits:
                late += (hits[0] - start) / 3600
                ends += over.get(hits[0]) == end
        false += sum(not any(start <= since <= end for start, end in leaks) for since in told)
        # A second alert for the same leak is a false one too.
        false += sum(max(0, sum(start <= since <= end for since in told) - 1) for start, end in leaks)
    return found, missed, false, late / max(found, 1), ends / max(found, 1), spoiled


def table():
    print("| leak | leaks | found | missed | false | precision | recall | onset off by (h) | ends to the hour |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for percent in (2, 3, 4, 5, 8, 15):
        found, missed, false, late, ends, spoiled = score(1 - percent / 100, range(1, 26))
        precision = f"{found / (found + false):.3f}" if found + false else "-"
        recall = found / (found + missed)
        print(f"| {percent} % | {found + missed} | {found} | {missed} | {false} | {precision} | {recall:.3f} | {late:.2f} | {ends:.2f} |")
        if spoiled:
            print(f"(in {spoiled} runs the three losses were not found to the hour)")
    print()
    print("| seed, 5 % | found of 8 | false |\n| --- | --- | --- |")
    for seed in (1, 2, 3, 4, 5):
        found, missed, false, *_ = score(0.95, [seed])
        print(f"| {seed} | {found} | {false} |")


def main(arguments):
    match arguments:
        case ["detect"]:
            for alert in run(readings()):
                print(json.dumps(alert))
        case ["oracle"]:
            return 0 if oracle() else 1
        case ["inject"]:
            table()
        case ["series", seed, factor]:
            changed, leaks = inject(list(readings()), int(seed), float(factor))
            print("Time,Water flow [l/s],leak")
            for time, flow in changed:
                print(f"{time},{flow},{int(any(a <= seconds(time) <= b for a, b in leaks))}")
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
