"""Throughput of the shipped classifiers, crops per second: ``python -m bench.classifiers``.

For comparison: the same networks at the crop's full 224 pixels.
"""

import argparse
import time

import keras
import numpy as np

from lumbar.networks.bundle import SHIPPED, load_network, read_description
from lumbar.networks.classifiers import CLASSES, build_classifier, predict
from lumbar.spine.crops import SIDE

CROPS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    description = read_description(SHIPPED)
    crops = np.random.default_rng(0).random((CROPS, SIDE, SIDE), dtype=np.float32)
    print(f"crops per second, best of {rounds} rounds of {CROPS} crops")
    for kind in CLASSES:
        entry = description["networks"][kind]
        full_size = build_classifier(kind, entry["architecture"])
        networks = {entry["side"]: load_network(SHIPPED, description, kind), SIDE: full_size}
        speeds = {side: throughput(network, crops, rounds) for side, network in networks.items()}
        results = ", ".join(f"{speeds[side]:.1f} at {side} pixels" for side in networks)
        factor = speeds[entry["side"]] / speeds[SIDE]
        print(f"  {entry['architecture']:10} {results}: {factor:.1f} times as fast")


def throughput(network: keras.Model, crops: np.ndarray, rounds: int) -> float:
    predict(network, crops[:4])
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        predict(network, crops)
        times.append(time.perf_counter() - start)
    return len(crops) / min(times)


if __name__ == "__main__":
    main()
