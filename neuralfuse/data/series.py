"""Speech and motion as time series, which ship in the wheel of aeon (the extra `series`): real data, no download."""

from collections.abc import Sequence

import numpy as np

from sram.errors import InputError


def japanese_vowels() -> list[np.ndarray]:
    """Nine speakers say /ae/: who speaks? 12 cepstrum coefficients of 7 to 29 frames (Kudo, Toyama and Shimbo, Pattern
    Recognition Letters 20, 1999), float32[n, 29, 12], zeros before the first frame; 270 for training, 370 for
    testing."""
    return _parts("load_japanese_vowels", "japanese-vowels")


def basic_motions() -> list[np.ndarray]:
    """Walking, resting, running or badminton? 10 s of a watch's accelerometer and gyroscope (UEA archive: Bagnall et
    al., arXiv 1811.00075), float32[n, 100, 6]; 40 for training, 40 for testing."""
    return _parts("load_basic_motions", "basic-motions")


def _parts(loader: str, name: str) -> list[np.ndarray]:
    try:
        from aeon import datasets
    except ImportError as error:
        allowed = 'one whose package is installed: pip install "neuralfuse-sim[series]"'
        raise InputError("data", "name", name, f"{allowed} ({error})") from None
    read = [getattr(datasets, loader)(split=split) for split in ("train", "test")]
    length = max(series.shape[1] for inputs, _ in read for series in inputs)
    names = sorted(set(read[0][1]))
    found = []
    for inputs, labels in read:
        found += [ending_together(inputs, length), np.array([names.index(label) for label in labels], np.int64)]
    return found


def ending_together(series: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Series float[features, frames] of any lengths as float32[n, length, features], zeros before the first frame: the
    last step of a recurrent network is the end of each.

    >>> ending_together([np.ones((1, 2)), np.ones((1, 3))], 3)[:, :, 0].tolist()
    [[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    found = np.zeros((len(series), length, series[0].shape[0]), np.float32)
    for row, frames in zip(found, series, strict=True):
        row[length - frames.shape[1] :] = frames.T
    return found
