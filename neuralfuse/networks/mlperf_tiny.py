"""The four networks of MLPerf Tiny (Banbury et al., NeurIPS 2021), layer by layer as in the reference's definitions.

Those are in github.com/mlcommons/tiny, benchmark/training: convolutions and linear layers have biases, also before a
BatchNorm. Padding is symmetric, as torch has it; TensorFlow's puts the odd pixel of a stride of two last, which changes
no count. Inputs: 3x32x32 (image classification), 1x49x10 (keyword spotting), 3x96x96 (visual wake words), 640 numbers
(anomaly detection; 640x1x1 does as well).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


def conv(cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution with bias, its BatchNorm and, unless a sum follows, its ReLU."""
    layers = [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def separable(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution of each channel, and a 1x1 convolution."""
    return nn.Sequential(conv(cin, cin, stride=stride, groups=cin), conv(cin, cout, 1))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution without BatchNorm where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(conv(cin, cout, stride=stride), conv(cout, cout, relu=False))
        self.shortcut: nn.Module = nn.Identity() if stride == 1 else nn.Conv2d(cin, cout, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _head(cin: int, num_classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, num_classes)


def resnet8(num_classes: int, in_channels: int) -> nn.Sequential:
    """Image classification: three blocks of 16, 32 and 64 channels."""
    blocks = Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)
    return nn.Sequential(conv(in_channels, 16), *blocks, *_head(64, num_classes))


def ds_cnn(num_classes: int, in_channels: int) -> nn.Sequential:
    """Keyword spotting (Zhang et al., 2017): a 10x4 convolution with stride 2, then four separable ones, all of 64."""
    stem = nn.Conv2d(in_channels, 64, (10, 4), 2, (5, 1)), nn.BatchNorm2d(64), nn.ReLU()
    return nn.Sequential(*stem, *(separable(64, 64) for _ in range(4)), *_head(64, num_classes))


def mobilenet_v1(num_classes: int, in_channels: int) -> nn.Sequential:
    """Visual wake words: MobileNetV1 (Howard et al., 2017) of a quarter of its channels."""
    widths = (16, 32, 32, 64, 64, *(128,) * 6, 256, 256)
    layers, cin = [conv(in_channels, 8, stride=2)], 8
    for i, width in enumerate(widths):
        layers.append(separable(cin, width, stride=2 if i in (1, 3, 5, 11) else 1))
        cin = width
    return nn.Sequential(*layers, *_head(cin, num_classes))


def autoencoder(num_classes: int, in_channels: int) -> nn.Sequential:
    """Anomaly detection: 128 numbers four times, 8 between, 128 four times, and as many as `num_classes` says."""
    widths = (in_channels, *(128,) * 4, 8, *(128,) * 4)
    layers: list[nn.Module] = [nn.Flatten()]
    for cin, cout in pairwise(widths):
        layers += [nn.Linear(cin, cout), nn.BatchNorm1d(cout), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, num_classes))
