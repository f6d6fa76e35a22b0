"""The command reference as Markdown, made from the commands themselves.

Walks the table of `cnnctl.cli.main` and every group below it. Says only what `--help` says; runs no
command.
"""

import inspect
import re
from collections.abc import Iterator

import click

from cnnctl.cli.main import COMMANDS, cli

HEAD = """\
# Commands

Made from the commands' own help: `cnnctl COMMAND --help` says the same. Data goes to stdout, progress and
messages go to stderr. A command with `--json` prints one document, whose `"schema"` is its version.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed: a file, a download, the disk |
| 2 | usage or configuration: what was typed or written is not right |
| 3 | a check did not hold: gradients, parity, losses that should agree |
| 4 | diverged: the loss, a gradient or a weight is not finite |
| 130, 143 | stopped cleanly by Ctrl-C or SIGTERM |

`-h` or `--help` stands behind every command; `cnnctl --version` tells the version. With `CNNCTL_DEBUG=1` an
internal error shows its traceback, `CNNCTL_DATA_DIR` says where data sets lie, and `NO_COLOR` is respected.
"""
EXTRA = re.compile(r"\s*\[(?P<words>(default: |required|[\d.]+<|x>).*)\]$")
"""What click puts behind an option's help."""
TYPED = re.compile(r"(?<![\w-])(?:-o [\w.]+=(?:\.\.\.|[\w.]*\w)|--[a-z][a-z-]*)")
"""What is typed, in the midst of words."""
SPECIAL = re.compile(r"([\\`*_<>\[\]|])")


def write_command_reference() -> str:
    """A page with a section for each command, and one for each subcommand below it."""
    sections = [HEAD]
    with click.Context(cli, info_name="cnnctl") as ctx:
        for name in COMMANDS:
            command = cli.get_command(ctx, name)
            assert command is not None
            sections += write_sections(ctx, name, command, level=2)
    return "\n".join(sections)


def write_sections(parent: click.Context, name: str, command: click.Command, level: int) -> Iterator[str]:
    """The command's section, then those of its subcommands."""
    with click.Context(command, info_name=name, parent=parent) as ctx:
        yield write_section(ctx, command, level)
        if isinstance(command, click.Group):
            for inner in command.list_commands(ctx):
                below = command.get_command(ctx, inner)
                assert below is not None
                yield from write_sections(ctx, inner, below, level + 1)


def write_section(ctx: click.Context, command: click.Command, level: int) -> str:
    """Usage, description, options and examples of one command."""
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    parts = [f"{'#' * level} {ctx.command_path}\n", f"```text\n{usage}\n```\n"]
    parts += write_help(command.help or "")
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    parts += [write_option(ctx, option) for option in options if option.name != "help"]
    parts += write_help(command.epilog or "")
    if examples := getattr(command, "examples", ()):
        parts.append("```sh\n{}\n```\n".format("\n".join(examples)))
    return "\n".join(parts)


def write_help(text: str) -> Iterator[str]:
    """Paragraphs as they are; what click is told not to wrap (a line with \\b before it) as text."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text) if text else ""):
        if paragraph.startswith("\b"):
            yield write_verbatim(paragraph.removeprefix("\b").strip("\n"))
        elif paragraph.strip():
            yield escape(" ".join(paragraph.split())) + "\n"


def write_verbatim(text: str) -> str:
    """Lines as they stand; a first one without indentation that ends in a colon is their title."""
    title, _, rest = text.partition("\n")
    if title.endswith(":") and rest.startswith(" "):
        return f"{escape(title)}\n\n```text\n{inspect.cleandoc(rest)}\n```\n"
    return f"```text\n{text}\n```\n"


def write_option(ctx: click.Context, option: click.Option) -> str:
    """One entry of a list of definitions: how it is written, what it means, what it is by default."""
    record = option.get_help_record(ctx)
    assert record is not None
    written, meaning = record
    extra = EXTRA.search(meaning)
    words = [escape(EXTRA.sub("", meaning))]
    if extra:
        words.append(f"*{escape(re.sub('^[dr]', lambda first: first[0].upper(), extra['words']))}.*")
    meaning = " ".join(filter(None, words)) or escape(option.name or "")
    return f"`{written.replace(' RANGE', '')}`\n: {meaning}\n"


def escape(text: str) -> str:
    """Plain text as Markdown has it, options in it as code."""
    words, end = "", 0
    for typed in TYPED.finditer(text):
        words += SPECIAL.sub(r"\\\1", text[end : typed.start()]) + f"`{typed[0]}`"
        end = typed.end()
    return words + SPECIAL.sub(r"\\\1", text[end:])
