"""The one error that means: the user's input is wrong, and nothing was done."""


class InputError(ValueError):
    """A mistake in what the user gave: file or object, key, value, and what is allowed.

    The command line prints it as one line and exits with status 2.

    >>> print(InputError("study.yaml", "voltages[2]", 0.4, "at least 0.75, the lowest voltage of the map"))
    study.yaml: voltages[2] = 0.4 is not allowed; allowed: at least 0.75, the lowest voltage of the map
    """

    def __init__(self, where: object, key: str, value: object, allowed: str):
        self.where, self.key, self.value, self.allowed = str(where), key, value, allowed
        super().__init__(str(self))

    def __reduce__(self) -> tuple:  # crosses process boundaries in worker pools
        return type(self), (self.where, self.key, self.value, self.allowed)

    def __str__(self) -> str:
        return f"{self.where}: {self.key} = {self.value!r} is not allowed; allowed: {self.allowed}"
