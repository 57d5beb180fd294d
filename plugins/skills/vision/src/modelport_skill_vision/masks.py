"""From a decoder's small logits to masks of the image's size, and of many masks those worth keeping."""

from __future__ import annotations

import msgspec
import numpy as np

from modelport_skill_vision.pixels import PixelRecipe

__all__ = ["Candidate", "box_of", "grid", "sifted", "upscaled", "without_doubles"]


class Candidate(msgspec.Struct, frozen=True):
    """A mask that may stay: its small logits (rows, columns), its score, and its box (x1, y1, x2, y2) in the image."""

    logits: np.ndarray
    score: float
    box: tuple[int, int, int, int]


def upscaled(logits: np.ndarray, recipe: PixelRecipe, size: tuple[int, int]) -> np.ndarray:
    """Logits (height, width) of an image of `size`, from the decoder's (rows, columns)."""
    import torch
    from torch.nn.functional import interpolate

    value = torch.from_numpy(np.array(logits, dtype=np.float32))[None, None]
    if recipe.longest_edge is not None:
        height, width = recipe.inner(size)
        value = interpolate(value, recipe.shape, mode="bilinear", align_corners=False)[..., :height, :width]
    return interpolate(value, size, mode="bilinear", align_corners=False)[0, 0].numpy()


def grid(points_per_side: int, size: tuple[int, int]) -> np.ndarray:
    """(points, 2): points (x, y) spread evenly over an image of `size` (height, width), row by row."""
    places = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(places * size[1], places * size[0])
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def sifted(
    logits: np.ndarray,
    scores: np.ndarray,
    recipe: PixelRecipe,
    size: tuple[int, int],
    *,
    threshold: float,
    least_score: float,
    least_stability: float,
    offset: float,
) -> list[Candidate]:
    """Of masks (masks, rows, columns) those whose score and stability are above the least ones.

    A mask is stable if it hardly changes as the threshold moves by `offset` up and down.
    """
    found = []
    for small, score in zip(logits, scores, strict=True):
        if least_score > 0 and not score > least_score:
            continue
        large = upscaled(small, recipe, size)
        if least_stability > 0:
            inner, outer = int((large > threshold + offset).sum()), int((large > threshold - offset).sum())
            if not outer or not inner / outer > least_stability:
                continue
        # A copy: a view would keep the masks of all points of its batch.
        found.append(Candidate(small.copy(), float(score), box_of(large > threshold)))
    return found


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The first and last column and row (x1, y1, x2, y2) of a mask; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0, 0, 0)
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def without_doubles(candidates: list[Candidate], most_overlap: float) -> list[Candidate]:
    """The candidates, best first, without those whose box overlaps that of a better one by more than `most_overlap`."""
    left = sorted(candidates, key=lambda candidate: -candidate.score)
    boxes = np.array([candidate.box for candidate in left], dtype=np.float64).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    stays = np.ones(len(left), dtype=bool)
    for index in range(len(left)):
        if not stays[index]:
            continue
        low, high = np.maximum(boxes[index, :2], boxes[:, :2]), np.minimum(boxes[index, 2:], boxes[:, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        together = areas[index] + areas - shared
        doubles = shared > most_overlap * together
        doubles[: index + 1] = False
        stays &= ~doubles
    return [candidate for candidate, stay in zip(left, stays, strict=True) if stay]
