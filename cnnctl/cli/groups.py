"""Commands whose help ends with examples, and groups that answer a mistyped name with what comes near."""

from collections.abc import Sequence
from typing import Any

import click

from cnnctl.errors import describe_alternatives


class ExampleCommand(click.Command):
    """A click command whose help ends with examples.

    Attributes:
        examples: whole command lines, with a comment behind # where one helps.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class HintingGroup(click.Group):
    """A click group that answers an unknown command with the nearest one."""

    command_class = ExampleCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known:
            raise click.UsageError(
                f"{args[0]!r} is not a command; {describe_alternatives(args[0], known)}", ctx
            )
        return super().resolve_command(ctx, args)
