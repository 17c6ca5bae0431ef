"""Networks that others publish figures of: ResNet18 at 224 x 224, the convolutions of AlexNet and VGG16."""

from simulator.workload import Layer, Workload, conv, linear


def resnet18() -> Workload:
    """ResNet18 for ImageNet: 7 x 7 stem, 3 x 3 convolutions, a fully connected layer."""
    layers: list[Layer] = []

    def add(layer: Layer) -> int:
        layers.append(layer)
        return len(layers) - 1

    def vector(name: str, kind: str, reads: int, writes: int, *sources: int) -> int:
        parts = tuple(((source,), reads // len(sources)) for source in sources)
        sizes = {"operations": reads, "elements_read": reads, "elements_written": writes}
        return add(Layer(name, kind, **sizes, sources=tuple(sorted(sources)), operands=parts))

    x = add(conv("conv1", 224, 224, 3, 64, 7, stride=2, padding=3, sources=(-1,)))
    x = vector("maxpool", "pool", 112 * 112 * 64, 56 * 56 * 64, x)
    channels, side = 64, 56
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            name, half = f"layer{stage}.{block}", side // stride
            first = add(conv(f"{name}.conv1", side, side, channels, filters, 3, stride=stride, padding=1, sources=(x,)))
            second = add(conv(f"{name}.conv2", half, half, filters, filters, 3, padding=1, sources=(first,)))
            if stride > 1:
                x = add(conv(f"{name}.downsample.0", side, side, channels, filters, 1, stride=2, sources=(x,)))
            x = vector(f"{name}.add", "elementwise", 2 * half * half * filters, half * half * filters, second, x)
            channels, side = filters, half
    x = vector("avgpool", "pool", 49 * 512, 512, x)
    add(linear("fc", 1, 512, 1000, sources=(x,)))
    return Workload("resnet18", tuple(layers))


def alexnet() -> Workload:
    """The five convolutions of AlexNet, each with its input in DRAM, as the Eyeriss chip ran them."""
    return Workload(
        "alexnet",
        (
            conv("CONV1", 227, 227, 3, 96, 11, stride=4),
            conv("CONV2", 27, 27, 96, 256, 5, padding=2, groups=2),
            conv("CONV3", 13, 13, 256, 384, 3, padding=1),
            conv("CONV4", 13, 13, 384, 384, 3, padding=1, groups=2),
            conv("CONV5", 13, 13, 384, 256, 3, padding=1, groups=2),
        ),
    )


def vgg16() -> Workload:
    """The thirteen convolutions of VGG16, likewise."""
    layers, side, channels = [], 224, 3
    for stage, (filters, times) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for i in range(1, times + 1):
            layers.append(conv(f"CONV{stage}-{i}", side, side, channels, filters, 3, padding=1))
            channels = filters
        side //= 2
    return Workload("vgg16", tuple(layers))
