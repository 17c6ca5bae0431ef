"""`--allow-import`, of every command that may meet a `package.module:callable`."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sram import plugins

AllowImport = Annotated[
    list[str],
    typer.Option(
        "--allow-import", metavar="MODULE", help="Installed package that module:callable may import; may be repeated."
    ),
]


def importing(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the option; without a study beside which modules may lie, they may lie in the current folder."""
    found = inspect.signature(command, eval_str=True)  # as text, annotations would lose their help and bounds

    @functools.wraps(command)
    def opened(*, allow_import: list[str], **options: Any) -> None:
        plugins.allow_imports(*allow_import)
        if "study" not in found.parameters:
            plugins.allow_folder(Path.cwd())
        command(**options)

    option = inspect.Parameter("allow_import", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=AllowImport)
    opened.__signature__ = found.replace(parameters=[*found.parameters.values(), option])  # type: ignore[attr-defined]
    opened.__annotations__ = {**command.__annotations__, "allow_import": AllowImport}
    return opened
