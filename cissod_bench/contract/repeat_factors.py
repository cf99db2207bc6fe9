"""Repeat factors: how often an image is drawn so that rare classes are seen more often (Gupta et al., CVPR 2019).

Repeat factor sampling (RFS) uses them on D_l; Eq. 10 of the paper has the same shape on D_l and D_u together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-9
"""A factor this little above an integer is that integer: sqrt(0.1 * 3 / 10 * 1800 / 6) must be 3 copies and not 4."""


def images_with_class(classes_of_images: Sequence[Sequence[int]], num_classes: int) -> npt.NDArray[np.int64]:
    """Return in how many images each class occurs, shape (n,).

    Args:
        classes_of_images: the distinct channels of every image's boxes.
        num_classes: n.
    """
    flat = np.fromiter((channel for classes in classes_of_images for channel in classes), np.int64)
    return np.bincount(flat, minlength=num_classes)


def class_factors(counts: npt.ArrayLike, images: float, threshold: float) -> Floats:
    """Return r_c = max(1, sqrt(t / f_c)) with f_c = counts / images, shape (n,), each >= 1.

    Eq. 10 is the same with t = epsilon, counts = m and images = N_l + N_u. A class in no image counts as one in a
    single image, so that the factor stays finite.

    Args:
        counts: images that hold the class, >= 0, shape (n,).
        images: number of images, > 0.
        threshold: t in [0, 1]; classes in at least this share of the images are not repeated.
    """
    at_least_one = np.maximum(np.asarray(counts, np.float64), 1.0)
    factors: Floats = np.maximum(1.0, np.sqrt(threshold * images / at_least_one))
    return factors


def image_factors(classes_of_images: Sequence[Sequence[int]], factors: Floats) -> Floats:
    """Return r_i = max of r_c over the image's classes, 1 for an image without boxes, shape (images,)."""
    result = np.ones(len(classes_of_images))
    counts = np.fromiter((len(classes) for classes in classes_of_images), np.int64)
    rows = np.repeat(np.arange(len(classes_of_images)), counts)
    flat = np.fromiter((channel for classes in classes_of_images for channel in classes), np.int64)
    np.maximum.at(result, rows, factors[flat])
    return result


def copies_of(factors: Floats) -> npt.NDArray[np.int32]:
    """Return how often each image is drawn in a pass: its factor rounded up, at least 1."""
    copies: npt.NDArray[np.int32] = np.maximum(np.ceil(factors - ROUNDING), 1).astype(np.int32)
    return copies


def labelled_copies(
    classes_of_images: Sequence[Sequence[int]], num_classes: int, threshold: float
) -> npt.NDArray[np.int32]:
    """Return RFS's copies of the images of D_l, shape (images,).

    Args:
        classes_of_images: the distinct channels of every image's boxes.
        num_classes: n.
        threshold: t, see `class_factors`.
    """
    counts = images_with_class(classes_of_images, num_classes)
    factors = class_factors(counts, len(classes_of_images), threshold)
    return copies_of(image_factors(classes_of_images, factors))
