"""Files that a command writes where it is told to: whole or not at all, and over nothing by accident."""

from pathlib import Path

import click

from cnnctl.errors import ConfigError

force_option = click.option("--force", is_flag=True, help="Overwrite what is there.")


def write_new_file(path: str, text: str, *, force: bool) -> None:
    """Raises ConfigError if there is something and no `force`, RunError if the disk does not take it."""
    from cnnctl.train.atomic import write_atomically

    refuse_existing(path, force=force)
    write_atomically(Path(path), text.encode())


def refuse_existing(path: str, *, force: bool) -> None:
    """What `write_new_file` would refuse, refused before there is anything to write."""
    if not force and Path(path).exists():
        raise ConfigError(f"{path}: is there already; give another name, or --force to overwrite it")
