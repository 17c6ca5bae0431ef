"""MobileNetV2 (Sandler et al., CVPR 2018) for small images: inverted residuals with depthwise convolutions."""

from torch import Tensor, nn

# expansion, channels, blocks, stride of the first: the paper's table, with the first two strides 1 as usual for CIFAR
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def conv_bn(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> list[nn.Module]:
    """A convolution without bias, its BatchNorm and, with `act`, its ReLU6."""
    layers = [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]
    return [*layers, nn.ReLU6(inplace=True)] if act else layers


class InvertedResidual(nn.Module):
    """Widen by `expansion`, filter each channel, narrow again; added to its input where shapes agree."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int):
        super().__init__()
        inner = cin * expansion
        expand = conv_bn(cin, inner, 1) if expansion > 1 else []
        self.body = nn.Sequential(
            *expand, *conv_bn(inner, inner, 3, stride, groups=inner), *conv_bn(inner, cout, 1, act=False)
        )
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """`width` multiplies all channels but the classes."""

    def __init__(self, num_classes: int, in_channels: int, width: float = 1.0):
        super().__init__()

        def wide(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        cin = wide(32)
        layers = conv_bn(in_channels, cin, 3)
        for expansion, channels, blocks, first_stride in STAGES:
            for i in range(blocks):
                layers.append(InvertedResidual(cin, wide(channels), first_stride if i == 0 else 1, expansion))
                cin = wide(channels)
        self.features = nn.Sequential(*layers, *conv_bn(cin, wide(1280), 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(wide(1280), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))
