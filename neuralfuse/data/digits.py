"""The handwritten digits that scikit-learn ships (Alpaydin and Kaynak, UCI, 1998): real data without a download."""

import torch
from torch import Tensor


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1,797 images of 8x8 pixels, enlarged bilinearly to 1x16x16; every fourth one, from the first, is held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 8 - 1  # grey levels 0..16
    x = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    y = torch.from_numpy(labels).long()
    held_out = torch.arange(len(y)) % 4 == 0
    return x[~held_out], y[~held_out], x[held_out], y[held_out]


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as sequences, float32[n, 16, 16]: an image row by row, from the top."""
    train_x, train_y, test_x, test_y = load()
    return train_x[:, 0], train_y, test_x[:, 0], test_y
