"""The one error that means: the user's input is wrong, and nothing was done."""


class InputError(ValueError):
    """A mistake in what the user gave: file or object, key, value, and what is allowed.

    The command line prints it as one line and exits with status 2.

    >>> print(InputError("study.yaml", "voltages[2]", 0.4, "at least 0.75, the lowest voltage of the map"))
    study.yaml: voltages[2] = 0.4 is not allowed; allowed: at least 0.75, the lowest voltage of the map
    """

    def __init__(self, where: object, key: str, value: object, allowed: str):
        self.where, self.key, self.value, self.allowed = str(where), key, value, str(allowed)
        super().__init__(str(self))

    def __reduce__(self) -> tuple:  # crosses process boundaries in worker pools
        return type(self), (self.where, self.key, self.value, self.allowed)

    def __str__(self) -> str:
        key, value = _cut(str(self.key), 200), _cut(repr(self.value), 300)
        return f"{_cut(self.where, 500)}: {key} = {value} is not allowed; allowed: {_cut(self.allowed, 1500)}"


def _cut(text: str, most: int) -> str:
    """So much of a text as can be read: what is wrong may be a whole file."""
    return text if len(text) <= most else f"{text[:most]} ..."
