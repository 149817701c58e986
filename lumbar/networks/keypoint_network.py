"""The locator's networks.

There are two small U-Nets (Ronneberger et al., MICCAI 2015) with one heat map per point, one for
sagittal and one for axial slices, and a small classifier of the lumbosacral border. Each point's
map is a softmax over the cells and one additional class, "not visible".
"""

import keras
from keras import layers

from lumbar.spine.keypoint_input import BORDER, Framing

WIDTHS = (32, 48, 64, 96, 128)
STEM, FINE = 16, 16
BORDER_WIDTHS = (24, 40, 64, 80)


def build_keypoint_network(framing: Framing) -> keras.Model:
    """Pictures (n, side, side), 0–1, to (n, cells² + 1, points) logits, the last "not visible"."""
    picture = keras.Input((framing.side, framing.side), name="picture")
    x = layers.Reshape((framing.side, framing.side, 1))(picture)
    fine = _conv_block(x, STEM, kernel=5, stride=2)
    x = _conv_block(fine, WIDTHS[0], stride=2)
    skips = []
    for width in WIDTHS[:-1]:
        x = _conv_block(_conv_block(x, width), width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = _conv_block(_conv_block(x, WIDTHS[-1]), WIDTHS[-1])
    pooled = layers.Concatenate()(
        [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    )
    for skip in reversed(skips):
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = layers.Concatenate()([x, skip])
        x = _conv_block(_conv_block(x, skip.shape[-1]), skip.shape[-1])
    x = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(x), fine])
    x = _conv_block(x, FINE)
    points = len(framing.points)
    cells = layers.Reshape((-1, points))(layers.Conv2D(points, 1)(x))
    absent = layers.Reshape((1, points))(layers.Dense(points)(pooled))
    heat = layers.Concatenate(axis=1, dtype="float32", name="heat")([cells, absent])
    return keras.Model(picture, heat, name="keypoints")


def build_border_network() -> keras.Model:
    """Pictures (n, side, side), 0–1, of the lumbosacral border to (n, 1) logits.

    The logit is that of a transitional vertebra.
    """
    picture = keras.Input((BORDER.side, BORDER.side), name="picture")
    x = layers.Reshape((BORDER.side, BORDER.side, 1))(picture)
    for width in BORDER_WIDTHS:
        x = layers.MaxPooling2D()(_conv_block(_conv_block(x, width), width))
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    return keras.Model(
        picture, layers.Dense(1, dtype="float32")(layers.Dropout(0.3)(x)), name="border"
    )


def _conv_block(
    x: keras.KerasTensor, width: int, kernel: int = 3, stride: int = 1
) -> keras.KerasTensor:
    x = layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))
