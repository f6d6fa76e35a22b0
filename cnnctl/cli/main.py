"""The `cnnctl` command: finds the subcommand, and turns every failure into one line.

Imports a command's module only when that command is asked for, so that `cnnctl --help`
answers at once. Computes nothing and prints through `display` only.
"""

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from signal import SIGINT, SIGTERM

import click

from cnnctl.cli.groups import HintingGroup
from cnnctl.errors import CnnctlError, Interrupted
from cnnctl.train.signals import handling_signals

SECTIONS = {
    "Train": {
        "train": ("cnnctl.cli.train", "train", "Train a network, or go on with a run."),
        "eval": ("cnnctl.cli.evaluate", "evaluate", "Score a run's network on its data."),
        "predict": ("cnnctl.cli.predict", "predict", "Tell what a run's network takes image files for."),
        "runs": ("cnnctl.cli.runs", "runs", "List, show, compare, remove and follow runs."),
    },
    "See": {
        "report": ("cnnctl.cli.report", "report", "Write all that a run has to show as one HTML file."),
        "plot": ("cnnctl.cli.plot", "plot", "Draw curves of runs."),
        "visualize-filters": (
            "cnnctl.cli.insight",
            "visualize_filters",
            "Draw the filters of a convolution.",
        ),
        "feature-maps": ("cnnctl.cli.insight", "feature_maps", "Draw what each layer makes of an image."),
        "saliency": ("cnnctl.cli.insight", "saliency", "Draw which pixels a class depends on."),
        "fool": ("cnnctl.cli.insight", "fool", "Change an image until it passes for another class."),
        "embed": ("cnnctl.cli.insight", "embed", "Draw the last hidden layer in two dimensions."),
        "convolve": ("cnnctl.cli.convolve", "convolve", "Convolve photographs with well-known kernels."),
        "visualize-activations": (
            "cnnctl.cli.activations",
            "visualize_activations",
            "Draw activation functions and their derivatives.",
        ),
    },
    "Check and time": {
        "gradcheck": ("cnnctl.cli.gradcheck", "gradcheck", "Hold gradients against differences."),
        "bench": ("cnnctl.cli.bench", "bench", "Time the machine, operations and steps."),
        "selftest": ("cnnctl.cli.selftest", "selftest", "Check this installation, in a minute."),
    },
    "Set up": {
        "config": ("cnnctl.cli.config", "config", "Write configs, check them, show them resolved."),
        "schema": ("cnnctl.cli.schema", "schema", "Print the JSON Schema of configs, for editors."),
        "data": ("cnnctl.cli.data", "data", "List, fetch, verify, import and show data sets."),
        "info": ("cnnctl.cli.info", "info", "Show CPU, threads, versions and build."),
        "completion": ("cnnctl.cli.completion", "completion", "Let the shell complete commands and names."),
    },
}
"""Title -> name -> module, attribute, one line of help."""
COMMANDS = {name: home for section in SECTIONS.values() for name, home in section.items()}
SIGNAL_WORDS = {SIGINT: "interrupted", SIGTERM: "terminated"}


class LazyGroup(HintingGroup):
    """Lists commands from the table and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, (_, _, line) in section.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text("`cnnctl COMMAND --help` tells the rest, with examples.")


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from cnnctl.cli import display
        from cnnctl.cli.info import describe_version

        display.print_text(describe_version())
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show version and build, and exit.",
)
def cli() -> None:
    """Train, check and time convolutional networks on the CPU you already have."""


class Stopped(BaseException):
    """A signal came where nobody waits for one; no `except Exception` on the way is to hold it up."""


class Stopper:
    """Ends a command at its first signal. What comes later, while it clears up, changes nothing."""

    def __init__(self) -> None:
        self._is_ending = False

    def __call__(self, signal_number: int) -> None:
        if not self._is_ending:
            self._is_ending = True
            raise Stopped(signal_number)

    def ignore_more(self) -> None:
        """From here on every signal comes late."""
        self._is_ending = True


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 1 failed; 2 usage or configuration; 3 a check did not hold; 4 diverged; 130 and
    143 after a signal. A failure is one line on stderr; the traceback of one that nobody
    foresaw is shown with CNNCTL_DEBUG=1.
    """
    stopper = Stopper()
    with handling_signals(stopper):
        try:
            try:
                return _run(args)
            finally:
                stopper.ignore_more()
        except (Exception, Stopped) as error:
            return _report(error)


def _run(args: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold any byte
    code = cli.main(args, prog_name="cnnctl", standalone_mode=False)
    if sys.stdout is not None:
        sys.stdout.flush()  # here, where a full disk can still be reported
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Say in one line what went wrong; returns the exit code."""
    from cnnctl.cli import display

    match error:
        case Interrupted():
            display.note(f"cnnctl: {error}")  # what was asked for, no error
            return error.exit_code
        case CnnctlError():
            display.error(str(error))
            return error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            display.note(error.format_message())
            return 2
        case click.MissingParameter(ctx=click.Context() as ctx):
            usage = ctx.get_usage().replace("Usage:", "usage:")
            display.error(f"{error.format_message().rstrip('.')}; {usage}")
            return 2
        case click.NoSuchOption():
            display.error(_suggest_override(error) or error.format_message())
            return 2
        case click.UsageError(ctx=click.Context(command=command)) if _takes_overrides(command):
            message = error.format_message()
            override = re.search(r"unexpected extra arguments? \(([\w.]+=\S*)\)", message)
            display.error(f"{message}; for a config's field give -o {override[1]}" if override else message)
            return 2
        case click.ClickException():
            display.error(error.format_message())
            return 2
        case Stopped(args=(number,)):
            display.note(f"cnnctl: {SIGNAL_WORDS[number]}")
            return 128 + int(number)
        case click.Abort():  # a prompt that found nobody to answer
            display.error("aborted: there was no answer")
            return 1
        case BrokenPipeError():
            _give_up_output()  # its reader has left
            return 1
        case OSError():
            _give_up_output()
            place = f"{error.filename}: " if error.filename else ""
            display.error(f"{place}{error.strerror or error}")
            return 1
        case MemoryError():
            details = f" ({error})" if str(error) else ""
            display.error(f"out of memory{details}; a smaller solver.batch_size needs less")
            return 1
        case _:
            display.internal_error(error, traceback=os.environ.get("CNNCTL_DEBUG") == "1")
            return 1


def _takes_overrides(command: click.Command) -> bool:
    return any("-o" in parameter.opts for parameter in command.params)


def _suggest_override(error: click.NoSuchOption) -> str | None:
    """An error line for what is no option but a field of the config, where those can be overridden."""
    if not error.ctx or not _takes_overrides(error.ctx.command):
        return None
    from cnnctl.config import RunConfig

    places = RunConfig.find_places(error.option_name.lstrip("-").replace("-", "_"))
    overrides = " or ".join(f"-o {place}=..." for place in places)
    return (
        f"No such option {error.option_name!r}; for the config's field give {overrides}" if places else None
    )


def _give_up_output() -> None:
    """If stdout cannot be written to, drop what it holds: the interpreter would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
