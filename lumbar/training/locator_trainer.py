"""Trains the locator's networks: AdamW, cosine schedule with warm-up, averaged weights.

Everything here is plain Keras and runs on any of its backends.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lumbar.networks.locator import FRAMINGS, build_network
from lumbar.spine.keypoint_input import Framing
from lumbar.training.keypoint_dataset import ExampleSampler, ViewDataset

RATE, WARM_UP, DECAY = 2e-3, 300, 1e-4
# Standard deviation of a target's Gaussian, cells.
SIGMA = 1.3


def train_network(
    kind: str,
    sample: ExampleSampler,
    views: ViewDataset,
    steps: int,
    batch: int,
    seed: int,
    advance: Callable[[float], None],
) -> keras.Model:
    """A network of a kind in ``FRAMINGS``, trained for ``steps`` batches.

    ``advance`` is called with the loss of each batch.
    """
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
    progress = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: advance(float(logs["loss"]))
    )
    batches = _Batches(sample, views, steps, seed, batch)
    network.fit(batches, epochs=1, verbose=0, callbacks=[progress])
    return network


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of random examples, reproducible from seed and batch number."""

    def __init__(
        self, sample: ExampleSampler, views: ViewDataset, steps: int, seed: int, batch: int
    ) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=8)
        self._sample, self._views = sample, views
        self._steps, self._seed, self._batch = steps, seed, batch

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng((self._seed, index))
        examples = [self._sample(rng, self._views) for _ in range(self._batch)]
        images = np.stack([example.image for example in examples])
        return images, np.stack([example.target for example in examples])


def heat_loss(
    framing: Framing,
) -> Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]:
    """Cross-entropy between the target heat map and the softmax of the network's logits.

    A keypoint's target is a Gaussian scaled by its presence; the rest is in an extra "absent" cell.
    The loss takes targets (batch, keypoints, 4), as in ``TrainingExample``, and logits
    (batch, cells² + 1, keypoints).
    """
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
