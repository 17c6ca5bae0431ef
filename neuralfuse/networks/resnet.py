"""Residual networks (He et al., CVPR 2016): the CIFAR and ImageNet stems of one family, and small ones for two cores.

Modules are defined in the order in which they run, so that the weight memory is laid out in that order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv_bn(cin: int, cout: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution without bias, its BatchNorm and, unless a sum follows, its ReLU."""
    layers = [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, cin: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(conv_bn(cin, width, 3, stride), conv_bn(width, width, 3, relu=False))
        same = stride == 1 and cin == width
        self.shortcut: nn.Module = nn.Identity() if same else conv_bn(cin, width, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; four times as wide outside as inside."""

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int):
        super().__init__()
        cout = width * self.expansion
        self.body = nn.Sequential(
            conv_bn(cin, width, 1), conv_bn(width, width, 3, stride), conv_bn(width, cout, 1, relu=False)
        )
        same = stride == 1 and cin == cout
        self.shortcut: nn.Module = nn.Identity() if same else conv_bn(cin, cout, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, stages of residual blocks (the first of each later stage halves the map), mean over the map, linear.

    `imagenet` picks the 7x7 stride-2 stem with max-pooling; else 3x3 stride 1 without pooling (the paper's CIFAR stem).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        in_channels: int,
        imagenet: bool = False,
        first_stride: int = 1,
    ):
        super().__init__()
        stem = widths[0]
        self.stem = conv_bn(in_channels, stem, 7, 2) if imagenet else conv_bn(in_channels, stem, 3)
        if imagenet:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        stages, cin = [], stem
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = []
            for j in range(count):
                stride = (first_stride if i == 0 else 2) if j == 0 else 1
                stage.append(block(cin, width, stride))
                cin = width * block.expansion
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(cin, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stages(self.stem(x))).flatten(1))


WIDTHS = (64, 128, 256, 512)


def resnet18(num_classes: int, in_channels: int, imagenet: bool = False) -> ResNet:
    """ResNet18 (He et al., CVPR 2016)."""
    return ResNet(BasicBlock, (2, 2, 2, 2), WIDTHS, num_classes, in_channels, imagenet)


def resnet34(num_classes: int, in_channels: int, imagenet: bool = False) -> ResNet:
    """ResNet34."""
    return ResNet(BasicBlock, (3, 4, 6, 3), WIDTHS, num_classes, in_channels, imagenet)


def resnet50(num_classes: int, in_channels: int, imagenet: bool = False) -> ResNet:
    """ResNet50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), WIDTHS, num_classes, in_channels, imagenet)


def small(num_classes: int, in_channels: int, blocks: int = 3, width: int = 16, first_stride: int = 1) -> ResNet:
    """ResNet-(6 blocks + 2): three stages of `width`, 2 and 4 times `width`; blocks = 3 is He et al.'s ResNet20."""
    widths = (width, 2 * width, 4 * width)
    return ResNet(BasicBlock, (blocks,) * 3, widths, num_classes, in_channels, first_stride=first_stride)
