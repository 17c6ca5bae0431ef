"""A classifier of sequences: a long short-term memory (Hochreiter and Schmidhuber, 1997) and a linear layer behind its
last step."""

from torch import Tensor, nn


class LSTM(nn.Module):
    """Features float32[n, t, in_channels] -> logits (n, num_classes)."""

    def __init__(self, num_classes: int, in_channels: int, width: int = 64, depth: int = 1):
        super().__init__()
        self.lstm = nn.LSTM(in_channels, width, depth, batch_first=True)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(x)
        return self.head(steps[:, -1])
