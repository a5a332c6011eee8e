"""Which words the canvas knows: the smallest gain of each word of its vocabulary, and of words that it never read.

    python benchmarks/recognition.py

The thresholds in the canvas's hints were chosen from such a list. A known word below its threshold is a false alarm.
"""

from __future__ import annotations

import random

from unlearnkit import load
from unlearnkit.data.recognition import gains
from unlearnkit.schema import Concept

REAL = ("kat", "submarine", "dinosaur", "elephant", "spaceship", "democracy")


def made_up(count: int, seed: int) -> list[str]:
    """Words that can be pronounced and mean nothing."""
    draws, letters = random.Random(seed), ("bcdfghjklmnpqrstvwxz", "aeiou")
    return [
        "".join(draws.choice(letters[i % 2]) for i in range(draws.choice([4, 5, 6, 7]))) for _ in range(count)
    ]


if __name__ == "__main__":
    model = load("canvas")
    for kind in ("object", "style"):
        least, wrong = model.hints.recognition[kind], [0, 0]
        for word in (*model.hints.vocabulary(kind), *REAL, *made_up(8, seed=1)):
            known = word in model.hints.vocabulary(kind)
            gain = min(gains(model, Concept(word, kind)))
            wrong[known] += (gain >= least) != known
            print(f"{kind:7} {word:14} {gain:6.3f} {'known' if known else ''}", flush=True)
        print(f"{kind}: threshold {least}, {wrong[1]} false alarms, {wrong[0]} unknown words taken for known")
