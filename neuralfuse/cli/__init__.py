"""The command line. Each command imports what it needs when it runs, so that `--help` answers at once."""

import io
import multiprocessing
import signal
import sys
import threading
from typing import Annotated

import typer

from neuralfuse.cli import (
    calibrate,
    curve,
    decoder,
    device,
    explain,
    faultmap,
    listing,
    optimize,
    rank,
    sensitivity,
    simulate,
    study,
    yields,
)
from neuralfuse.cli.imports import importing
from neuralfuse.sweep.allocator import keep_freed_memory
from sram.errors import InputError
from sram.names import printable

# Newer typers carry their own copy of click, older ones import it: the public BadParameter leads to the base of both.
CommandError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    name="neuralfuse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("demo")(study.demo)
app.command("sweep")(importing(study.sweep))
app.command("optimize")(importing(optimize.optimize))
app.command("yield")(importing(yields.yields))
app.command("rank")(importing(rank.rank))
app.command("report")(study.report)
app.command("train")(importing(study.train))
app.command("merge")(study.merge)
app.command("results")(study.results)
app.command("sensitivity")(importing(sensitivity.sensitivity))
app.command("explain")(importing(explain.explain))
app.add_typer(curve.app, name="curve")
app.add_typer(faultmap.app, name="faultmap")
app.add_typer(device.app, name="device")
app.command("calibrate")(importing(calibrate.calibrate))
app.command("simulate")(importing(simulate.simulate))
app.command("decoder")(decoder.decoder)
app.command("place")(importing(simulate.place))
app.command("trace")(importing(simulate.trace))
app.add_typer(listing.networks, name="networks")
app.add_typer(listing.accelerator, name="accelerator")
app.command("version")(listing.version)


def _short_version(wanted: bool) -> None:
    if wanted:
        import neuralfuse

        print(f"neuralfuse {neuralfuse.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", callback=_short_version, is_eager=True)
    ] = False,
) -> None:
    """Accuracy, energy and cycles of a neural network on an accelerator whose SRAM supply is lowered."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit: 0 done, 2 the user's input is wrong, 130 interrupted or ended, 1 anything else."""
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to stop
    if threading.current_thread() is threading.main_thread():  # others may set no handler
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = app(args=arguments, standalone_mode=False)
    except InputError as error:
        print(f"neuralfuse: {printable(error)}", file=sys.stderr)
        status = 2
    except CommandError as error:
        error.show()  # type: ignore[attr-defined]
        status = 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"neuralfuse: {printable(where)}{error.strerror or error}; what was done is kept", file=sys.stderr)
        status = 1
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    if status == 130:  # typer gives it back for an interruption, too
        print("neuralfuse: interrupted; what was done is kept", file=sys.stderr)
        for worker in multiprocessing.active_children():  # in the middle of tasks that nobody waits for
            worker.kill()
    sys.exit(status if isinstance(status, int) else 0)
