"""The locator's networks: small U-Nets with one heat map a point, for sagittal and for axial slices; and a small
classifier of the border between the lumbar spine and the sacrum.

Ronneberger et al., U-Net, MICCAI 2015. Each point's map is a softmax over the cells and one more, "not here".
"""

import keras
from keras import layers

from lumbar.spine.keypoint_input import BORDER, Framing

WIDTHS = (32, 48, 64, 96, 128)
STEM, FINE = 16, 16
BORDER_WIDTHS = (24, 40, 64, 80)


def build_keypoint_network(framing: Framing) -> keras.Model:
    """Pictures (n, side, side), 0–1, to (n, cells² + 1, points) logits, the last row "not here"."""
    picture = keras.Input((framing.side, framing.side), name="picture")
    x = layers.Reshape((framing.side, framing.side, 1))(picture)
    fine = _convolved(x, STEM, kernel=5, stride=2)
    x = _convolved(fine, WIDTHS[0], stride=2)
    skips = []
    for width in WIDTHS[:-1]:
        x = _convolved(_convolved(x, width), width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = _convolved(_convolved(x, WIDTHS[-1]), WIDTHS[-1])
    whole = layers.Concatenate()(
        [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    )
    for skip in reversed(skips):
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = layers.Concatenate()([x, skip])
        x = _convolved(_convolved(x, skip.shape[-1]), skip.shape[-1])
    x = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(x), fine])
    x = _convolved(x, FINE)
    points = len(framing.points)
    cells = layers.Reshape((-1, points))(layers.Conv2D(points, 1)(x))
    absent = layers.Reshape((1, points))(layers.Dense(points)(whole))
    heat = layers.Concatenate(axis=1, dtype="float32", name="heat")([cells, absent])
    return keras.Model(picture, heat, name="keypoints")


def build_border_network() -> keras.Model:
    """Pictures (n, side, side), 0–1, about the lumbosacral border to (n, 1): the logit of a transitional vertebra."""
    picture = keras.Input((BORDER.side, BORDER.side), name="picture")
    x = layers.Reshape((BORDER.side, BORDER.side, 1))(picture)
    for width in BORDER_WIDTHS:
        x = layers.MaxPooling2D()(_convolved(_convolved(x, width), width))
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    return keras.Model(
        picture, layers.Dense(1, dtype="float32")(layers.Dropout(0.3)(x)), name="border"
    )


def _convolved(
    x: keras.KerasTensor, width: int, kernel: int = 3, stride: int = 1
) -> keras.KerasTensor:
    x = layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))
