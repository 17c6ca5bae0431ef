"""A frozen network in the form that computes fastest, with the same answers up to rounding of floats."""

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_normalisation(network: nn.Module) -> dict[str, Tensor]:
    """Take the BatchNorm that directly follows a convolution out of a network in eval mode, in place.

    Its offset becomes the convolution's bias. Its gain is returned, float64[filters] by name of the weight: weights are
    stored as they were trained, so the gain belongs to the number that a word stands for, not to the word. What cannot
    be traced, or computes with a convolution or its weight more than once, is left as it is.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2)).eval()
    >>> gain = fold_normalisation(network)
    >>> list(gain), network[1], network[0].bias.tolist()
    (['0.weight'], Identity(), [0.0, 0.0])
    """
    try:
        graph = fx.symbolic_trace(network).graph
    except Exception:  # tracing fails in as many ways as there are networks; nothing is lost but time
        return {}
    modules = dict(network.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    uses = [parameter for module in modules.values() for parameter in module._parameters.values()]
    gains = {}
    for node in graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
            continue
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        convolution = modules[str(source.target)]
        if not isinstance(convolution, CONVOLUTIONS):
            continue
        shared = sum(parameter is convolution.weight for parameter in uses) > 1
        if shared or calls.count(source.target) > 1 or calls.count(node.target) > 1:
            continue
        gain = (norm.running_var.double() + norm.eps).rsqrt()
        bias = (
            -norm.running_mean.double() if convolution.bias is None else convolution.bias - norm.running_mean.double()
        )
        if norm.affine:
            gain = gain * norm.weight.double()
        offset = bias * gain + (norm.bias.double() if norm.affine else 0.0)
        convolution.bias = nn.Parameter(offset.detach().to(convolution.weight.dtype), requires_grad=False)
        network.set_submodule(str(node.target), nn.Identity())
        gains[f"{source.target}.weight"] = gain.detach()
    return gains


def channels_last(network: nn.Module) -> None:
    """From the second convolution on, let a network on a CPU compute with the channels innermost, in place.

    Only where all channels after the image's come in eights, the processor's vectors; with torch 2.13 convolutions of
    four channels in this layout write beyond their memory.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.modules.conv._ConvNd)]
    inner = layers[1:]
    plain = all(isinstance(layer, nn.Conv2d) and layer.out_channels % 8 == 0 for layer in layers)
    if inner and plain and all(layer.in_channels % 8 == 0 for layer in inner):
        inner[0].register_forward_pre_hook(
            lambda _layer, inputs: (inputs[0].contiguous(memory_format=torch.channels_last),)
        )
