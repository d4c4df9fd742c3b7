"""A data set the size of MNIST, made for benchmarks: 28 x 28 grey images of ten invented characters.

A character has a few styles, each a handful of curved strokes. An image is one style, its strokes bent at random,
turned, sheared, scaled and moved, drawn with a pen of random width, with another mark and noise on top. The same seed
gives the same bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

CLASSES, STYLES, STROKES, SIDE = 10, 3, 3, 28
TRAINING_ROWS, TEST_ROWS = 60_000, 10_000
POINTS = 24  # of a stroke that are inked
CHUNK = 5_000  # rows at a time


def write(folder: str | Path, training: int = TRAINING_ROWS, test: int = TEST_ROWS, seed: int = 0) -> Path:
    """Write the four IDX files, as MNIST's own are named, and return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows, part in (("train", training, 0), ("t10k", test, 1)):
        x, y = draw(rows, np.random.default_rng([seed, part]), seed)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 8, 3, *x.shape) + x.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, len(y)) + y.tobytes())
    return folder


def draw(rows: int, rng: np.random.Generator, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (rows, 28, 28), classes uint8 (rows,)). The characters depend on the seed, the rest on rng."""
    shapes = alphabet(seed)
    y = rng.integers(0, CLASSES, rows)
    x = np.concatenate([_images(shapes, y[at : at + CHUNK], rng) for at in range(0, rows, CHUNK)])
    return x, y.astype(np.uint8)


def alphabet(seed: int) -> np.ndarray:
    """Control points of the strokes, (classes, styles, strokes, 3, 2), in the square from -1 to 1.

    A stroke is a quadratic Bezier curve. Those of a character hang together, and its styles differ a little.
    """
    rng = np.random.default_rng([seed, 2])
    base = rng.uniform(-0.8, 0.8, (CLASSES, 1, STROKES, 3, 2))
    base[:, :, 1:, 0] = base[:, :, :-1, 2]
    return base + 0.16 * rng.standard_normal((CLASSES, STYLES, STROKES, 3, 2))


def _images(shapes: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows = len(y)
    strokes = shapes[y, rng.integers(0, STYLES, rows)] + 0.065 * rng.standard_normal((rows, STROKES, 3, 2))
    angle, shear = 0.17 * rng.standard_normal((2, rows))
    scale = np.exp(0.1 * rng.standard_normal((rows, 2)))
    turn = np.stack([np.cos(angle), -np.sin(angle) + shear, np.sin(angle), np.cos(angle)], 1).reshape(rows, 2, 2)
    t = np.linspace(0, 1, POINTS)
    weights = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)
    curves = np.einsum("pc,nscd->nspd", weights, strokes).reshape(rows, -1, 2) * scale[:, None]
    curves = np.einsum("nde,npe->npd", turn, curves) + 0.07 * rng.standard_normal((rows, 1, 2))
    ink = np.full(curves.shape[:2], 1.0)
    # A mark that belongs to no character.
    place, along = rng.uniform(-1, 1, (2, rows, 1, 2))
    mark = place + 0.25 * along * np.linspace(-1, 1, 10)[:, None]
    curves = np.concatenate([curves, mark], 1)
    ink = np.concatenate([ink, np.full(mark.shape[:2], 0.8)], 1)
    image = _ink(curves, ink, rows)
    blur = _pens(rng.uniform(0.5, 0.9, rows))
    image = blur @ image @ blur.transpose(0, 2, 1)
    image = 255 * (1 - np.exp(-1.2 * image)) + 18 * np.abs(rng.standard_normal(image.shape).astype(np.float32))
    return np.clip(image, 0, 255).astype(np.uint8)


def _ink(points: np.ndarray, ink: np.ndarray, rows: int) -> np.ndarray:
    """Points (rows, n, 2) dropped onto the pixels (rows, 28, 28), each on the four that are nearest."""
    place = np.clip((points + 1) * (SIDE - 7) / 2 + 3, 0, SIDE - 1.001)
    low = place.astype(np.int64)
    part = place - low
    image = np.zeros(rows * SIDE * SIDE, np.float32)
    start = np.arange(rows)[:, None] * SIDE * SIDE
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - part[..., 1]) * np.abs(1 - dx - part[..., 0])
            at = start + (low[..., 1] + dy) * SIDE + low[..., 0] + dx
            image += np.bincount(at.ravel(), (share * ink).ravel(), image.size).astype(np.float32)
    return image.reshape(rows, SIDE, SIDE)


def _pens(widths: np.ndarray) -> np.ndarray:
    """Matrices that blur along an axis with a Gaussian of these widths in pixels, (rows, 28, 28)."""
    apart = np.arange(SIDE)[:, None] - np.arange(SIDE)
    return np.exp(-(apart**2) / (2 * widths[:, None, None] ** 2)).astype(np.float32)
