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
    described = read_description(SHIPPED)
    crops = np.random.default_rng(0).random((CROPS, SIDE, SIDE), dtype=np.float32)
    print(f"crops per second, the best of {rounds} rounds of {CROPS}")
    for kind in CLASSES:
        stated = described["networks"][kind]
        whole = build_classifier(kind, stated["architecture"])
        networks = {stated["side"]: load_network(SHIPPED, described, kind), SIDE: whole}
        speeds = {side: throughput(network, crops, rounds) for side, network in networks.items()}
        results = ", ".join(f"{speeds[side]:.1f} at {side} pixels" for side in networks)
        factor = speeds[stated["side"]] / speeds[SIDE]
        print(f"  {stated['architecture']:10} {results}: {factor:.1f} times as many")


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
