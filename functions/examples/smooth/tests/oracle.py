"""Makes oracle.json: readings with noise and outliers, and what NumPy says of every window. pip install numpy==2.4.6"""

import json
import pathlib

import numpy as np

WINDOW = 5
random = np.random.default_rng(2026)
values = np.round(20 + np.cumsum(random.normal(0, 0.3, 200)) + (random.random(200) < 0.05) * 40, 2)
rows = []
for end in range(1, len(values) + 1):
    window = values[max(0, end - WINDOW) : end]
    rows.append({"value": window[-1], "median": np.median(window), "mean": np.mean(window)})
text = ",\n".join(json.dumps(row, default=float) for row in rows)
pathlib.Path(__file__).with_name("oracle.json").write_text(f"[\n{text}\n]\n")
