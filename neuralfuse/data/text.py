"""English that ships with Python, character by character: the topics of its interactive help (`pydoc_data.topics`,
made from the language reference; Python Software Foundation License). Real text without a download; each release of
Python has its own."""

import importlib

import numpy as np

from sram.errors import InputError

WINDOWS = 32  # of a block: blocks are as far apart as text is alike
TEST = 10  # every tenth block


def text() -> str:
    """All topics in the order of their names, each paragraph once, however its lines are broken: they quote one
    another, and what is tested shall not have been read in training."""
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    parts: dict[str, str] = {}
    for name in sorted(topics):
        for part in topics[name].split("\n\n"):
            parts.setdefault(" ".join(part.split()), part)
    return "\n\n".join(parts.values())


def load(size: int = 64) -> list[np.ndarray]:
    """Windows of `size` characters int64[n, size], numbered in the order of their codes, and of each the characters
    that follow, int64[n, size]: for training, for testing. Blocks of WINDOWS windows are for one or the other; a window
    that stands in the training text, too, is not tested.

    >>> train_x, train_y, test_x, _ = load()
    >>> bool((train_x[:, 1:] == train_y[:, :-1]).all()), len(train_x) > 8 * len(test_x)
    (True, True)
    """
    if not 2 <= size <= 1024:
        raise InputError("data", "text size", size, "2 to 1024, the characters of a window")
    codes = np.array([ord(letter) for letter in text()])
    _, letters = np.unique(codes, return_inverse=True)
    windows = (len(letters) - 1) // size
    x, y = (letters[first : first + windows * size].reshape(windows, size).astype(np.int64) for first in (0, 1))
    test = np.arange(windows) // WINDOWS % TEST == TEST - 1
    known = x[~test].astype(np.uint16).tobytes()
    new = [window.astype(np.uint16).tobytes() not in known for window in x[test]]
    return [x[~test], y[~test], x[test][new], y[test][new]]
