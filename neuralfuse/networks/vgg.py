"""VGG networks with BatchNorm (Simonyan and Zisserman, 2015): one linear layer for CIFAR, three for ImageNet."""

from torch import Tensor, nn

# output channels of each 3x3 convolution; "M" halves the map
CONFIGURATIONS = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    19: (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"),
}


class VGG(nn.Module):
    """Convolutions with bias, BatchNorm and ReLU; then a linear layer on a 1x1 map, or ImageNet's three on 7x7."""

    def __init__(self, depth: int, num_classes: int, in_channels: int, imagenet: bool = False, width: float = 1.0):
        super().__init__()
        layers: list[nn.Module] = []
        cin = in_channels
        for entry in CONFIGURATIONS[depth]:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
                continue
            cout = max(1, round(entry * width))
            layers += [nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
            cin = cout
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(7 if imagenet else 1)
        self.head: nn.Module
        if imagenet:
            self.head = nn.Sequential(
                *(nn.Linear(cin * 49, 4096), nn.ReLU(inplace=True), nn.Dropout()),
                *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()),
                nn.Linear(4096, num_classes),
            )
        else:
            self.head = nn.Linear(cin, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))
