"""Teaching the locator's networks: Adam with decoupled weight decay, a cosine schedule, averaged weights.

Everything here is Keras alone, on whatever backend there is.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lumbar.networks.locator import FRAMINGS, build_network
from lumbar.spine.keypoint_input import Framing
from lumbar.training.keypoint_dataset import Album, Lessons

RATE, WARM_UP, DECAY = 2e-3, 300, 1e-4
SIGMA = 1.3  # cells: how wide a target's blob is


def teach(
    kind: str,
    lessons: Lessons,
    album: Album,
    steps: int,
    batch: int,
    seed: int,
    advance: Callable[[float], None],
) -> keras.Model:
    """A network of a kind in ``FRAMINGS``, taught ``steps`` batches; ``advance`` gets each one's loss."""
    keras.utils.set_random_seed(seed)
    network = build_network(kind)
    loss: Any = heat_loss(FRAMINGS[kind])
    if kind == "border":
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.02)
    schedule = keras.optimizers.schedules.CosineDecay(
        RATE / 20, max(steps - WARM_UP, 1), alpha=0.005, warmup_target=RATE, warmup_steps=WARM_UP
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=DECAY, clipnorm=1.0, use_ema=True, ema_momentum=0.999
    )
    network.compile(optimizer, loss, jit_compile=False)
    told = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: advance(float(logs["loss"]))
    )
    network.fit(_Batches(lessons, album, steps, seed, batch), epochs=1, verbose=0, callbacks=[told])
    return network


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batch n is the same on every run."""

    def __init__(self, lessons: Lessons, album: Album, steps: int, seed: int, batch: int) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=8)
        self._lessons, self._album, self._steps, self._seed, self._batch = (
            lessons,
            album,
            steps,
            seed,
            batch,
        )

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng((self._seed, index))
        drawn = [self._lessons(rng, self._album) for _ in range(self._batch)]
        return np.stack([lesson.picture for lesson in drawn]), np.stack(
            [lesson.truth for lesson in drawn]
        )


def heat_loss(
    framing: Framing,
) -> Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]:
    """Cross-entropy between a blob of the point's presence, the rest on "not here", and the map's softmax."""
    cells = framing.cells
    grid = ops.arange(cells, dtype="float32")

    def loss(points: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
        column, row, presence, weight = (points[..., i] for i in range(4))
        across = ops.exp(-ops.square((grid - column[..., None]) / SIGMA) / 2)
        down = ops.exp(-ops.square((grid - row[..., None]) / SIGMA) / 2)
        blob = ops.reshape(
            down[..., :, None] * across[..., None, :], (-1, len(framing.points), cells * cells)
        )
        blob = blob / (ops.sum(blob, axis=-1, keepdims=True) + 1e-6) * presence[..., None]
        target = ops.concatenate([blob, (1 - presence)[..., None]], axis=-1)
        surprise = -ops.sum(
            target * ops.transpose(ops.log_softmax(logits, axis=1), (0, 2, 1)), axis=-1
        )
        return ops.sum(surprise * weight, axis=-1) / len(framing.points)

    return loss
