"""Texts with labels by name: train, predict, save, load. Runs on a CPU in less than a minute."""

import logging
import tempfile
from pathlib import Path

import numpy as np

from haste import HasteClassifier

logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("example")

# Documents about one or two of 200 topics; yours come from a file.
random = np.random.default_rng(0)
topics = [random.choice(200, random.integers(1, 3), replace=False) for _ in range(3000)]
texts = [" and ".join(f"subject{t} aspect{t % 17}" for t in row) for row in topics]
labels = [[f"topic {t}" for t in row] for row in topics]

model = HasteClassifier(training={"epochs": 10}).fit(texts[:2500], labels[:2500])
log.info("P@1 on unseen texts: %.1f", model.evaluate(texts[2500:], labels[2500:])["P@1"])

names, probabilities = model.predict(["subject7 aspect7 and subject42 aspect8"], k=3)
for name, probability in zip(names[0], probabilities[0], strict=True):
    log.info("%.2f %s", probability, name)

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(Path(folder) / "topics")
    again = HasteClassifier.from_pretrained(Path(folder) / "topics")
    log.info("after loading: %s", again.predict(texts[:1], k=1)[0][0, 0])
