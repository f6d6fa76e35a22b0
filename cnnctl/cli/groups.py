"""A group of commands that answers a mistyped one with what comes near."""

import click

from cnnctl.errors import describe_alternatives


class HintingGroup(click.Group):
    """As click has it, but for that one error."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known:
            raise click.UsageError(
                f"{args[0]!r} is not a command; {describe_alternatives(args[0], known)}", ctx
            )
        return super().resolve_command(ctx, args)
