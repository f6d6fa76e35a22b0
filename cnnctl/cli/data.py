"""`cnnctl data`: list, fetch, verify, import and show data sets.

Passes names and paths on and shows what came of it; reads no images itself. `show`
downloads nothing.
"""

from pathlib import Path
from typing import Any

import click

from cnnctl.cli import display
from cnnctl.cli.groups import HintingGroup
from cnnctl.cli.options import PATH, complete_dataset, data_dir_option, json_option


@click.group(cls=HintingGroup)
def data() -> None:
    """List, fetch, verify, import and show data sets."""


@data.command(
    "list",
    examples=("cnnctl data list",),
)
@data_dir_option
@json_option
def list_(data_dir: str | None, as_json: bool) -> None:
    """List all data sets and where they are."""
    from cnnctl.data.catalog import CATALOG, choose_data_dir, find_dataset, list_data_dirs

    reports: list[dict[str, Any]] = []
    for entry in CATALOG.values():
        stored = find_dataset(entry.name, data_dir) if entry.forms else None
        belongs = choose_data_dir(data_dir) / entry.name if entry.forms and not stored else None
        reports.append(
            {
                "name": entry.name,
                "description": entry.description,
                "classes": entry.classes,
                "path": stored and str(stored.path),
                "belongs": belongs and str(belongs),
            }
        )
    if as_json:
        directories = [str(directory) for directory in list_data_dirs(data_dir)]
        document = {"schema": 1, "command": "data list", "data_dirs": directories, "datasets": reports}
        display.print_json(document)
        return
    rows = [(report["name"], report["description"], _describe_place(report)) for report in reports]
    display.print_table("", ("data set", "what it is", "where"), rows)


@data.command(
    examples=(
        "cnnctl data fetch mnist",
        "cnnctl data fetch mnist cifar10 --data-dir data",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_dataset)
@data_dir_option
@json_option
def fetch(names: tuple[str, ...], data_dir: str | None, as_json: bool) -> None:
    """Download each data set NAME."""
    from cnnctl.data.catalog import fetch_dataset, find_stored_entry

    entries = [find_stored_entry(name) for name in names]
    reports = []
    with display.DownloadProgress() as progress:
        for entry in entries:
            path = str(fetch_dataset(entry.name, data_dir, on_download=progress).path)
            reports.append({"name": entry.name, "path": path})
            if not as_json:
                display.print_text(f"{entry.name}: {path}")
    if as_json:
        display.print_json({"schema": 1, "command": "data fetch", "datasets": reports})


@data.command(
    examples=(
        "cnnctl data verify",
        "cnnctl data verify mnist",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_dataset)
@data_dir_option
@json_option
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], data_dir: str | None, as_json: bool) -> None:
    """Check each data set NAME, or all that are there.

    A file is official, or differs from the official one, or has no official sum to be held
    against (unlisted), or is missing. Exit code 1 when a data set cannot be read.
    """
    from cnnctl.data.catalog import CATALOG, verify_dataset

    stored_names = [entry.name for entry in CATALOG.values() if entry.forms]
    found = {name: verify_dataset(name, data_dir) for name in names or stored_names}
    if not names:
        found = {name: verification for name, verification in found.items() if verification.path}
    reports = [
        {
            "name": name,
            "path": verification.path and str(verification.path),
            "files": [{"file": str(file), "state": state} for file, state in verification.files],
            "ok": verification.error is None,
            "error": verification.error,
        }
        for name, verification in found.items()
    ]
    if as_json:
        display.print_json({"schema": 1, "command": "data verify", "datasets": reports})
    else:
        _show_verifications(reports)
    if not all(report["ok"] for report in reports):
        ctx.exit(1)


@data.command(
    "import",
    examples=(
        "cnnctl data import cifar10 downloads/cifar-10-binary.tar.gz",
        "cnnctl data import mnist old/mnist --data-dir data",
    ),
)
@click.argument("name", shell_complete=complete_dataset)
@click.argument("source", type=PATH)
@data_dir_option
@json_option
def import_(name: str, source: str, data_dir: str | None, as_json: bool) -> None:
    """Copy the data set NAME from SOURCE.

    SOURCE is its folder or archive, or a folder that holds that. It is checked first, and
    goes to where data sets lie.
    """
    from cnnctl.data.catalog import import_dataset

    stored = import_dataset(name, source, data_dir)
    if as_json:
        document = {"schema": 1, "command": "data import", "name": name, "path": str(stored.path)}
        display.print_json({**document, "notes": stored.notes})
        return
    for note in stored.notes:
        display.warn(note)
    display.print_text(f"{name}: {stored.path}")


@data.command(
    examples=(
        "cnnctl data show shapes",
        "cnnctl data show folder --path pictures --image-size 64 -n 4 --output sheet.png",
    ),
)
@click.argument("name", shell_complete=complete_dataset)
@click.option("-n", "count", type=click.IntRange(min=1), default=8, show_default=True, help="Images a class.")
@click.option(
    "--split", type=click.Choice(["train", "test"]), default="train", show_default=True, help="Which images."
)
@click.option("--output", type=PATH, metavar="FILE", help="The PNG to write.  [default: NAME-SPLIT.png]")
@click.option("--path", type=PATH, metavar="PATH", help="The folder or .npz file, for folder and npz.")
@click.option("--image-size", type=click.IntRange(min=1), help="Resize a folder's images to this side.")
@data_dir_option
@json_option
def show(
    name: str,
    count: int,
    split: str,
    output: str | None,
    path: str | None,
    image_size: int | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Draw a contact sheet of the data set NAME.

    It is a PNG with a row of images for each class.
    """
    from cnnctl.data import load_dataset
    from cnnctl.plot.contact_sheet import draw_contact_sheet

    dataset = load_dataset(name, data_dir=data_dir, path=path, image_size=image_size, download=False)
    images = dataset.train if split == "train" else dataset.test
    sheet = Path(output or f"{name}-{split}.png")
    draw_contact_sheet(images, dataset.classes, sheet, count)
    if as_json:
        document = {"schema": 1, "command": "data show", "name": name, "split": split, "output": str(sheet)}
        facts = {"images": len(images), "image_shape": dataset.image_shape, "classes": dataset.classes}
        display.print_json({**document, **facts, "notes": dataset.notes})
        return
    for note in dataset.notes:
        display.warn(note)
    display.print_text(str(sheet))


def _describe_place(report: dict[str, Any]) -> str:
    if report["path"]:
        return str(report["path"])
    if report["belongs"]:
        return f"not present; belongs into {report['belongs']}"
    return "built in" if report["classes"] else "given as data.path"


def _show_verifications(reports: list[dict[str, Any]]) -> None:
    rows = [
        (report["name"], entry["file"], entry["state"]) for report in reports for entry in report["files"]
    ]
    rows += [(report["name"], report["path"], "readable") for report in reports if report["ok"]]
    display.print_table("", ("data set", "file", "state"), rows)
    for report in reports:
        if not report["ok"]:
            display.error(report["error"])
