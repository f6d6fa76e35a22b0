"""Makes the pictures of the README and the docs, all from commands that are really run.

    python -m docs.pictures [terminal | report] [--run RUN]

terminal: the quick start as a recording, train.svg. report: MNIST trained by configs/mnist_simple.yaml,
its report by day and by night, and its filters before and after; with --run, of a run that is there. Needs
pyte for the one, a Chromium and MNIST for the other. Draws no figure that was not measured, and shows no
path of the machine it runs on.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from base64 import b64decode
from io import BytesIO
from pathlib import Path

from PIL import Image

from docs.terminal import play, record, render
from tests.plot.browser import Page, find_browser

HOUSE = Path(__file__).parents[1]
PICTURES = HOUSE / "docs" / "pictures"
SIZE = (92, 24)
SESSION = (
    "cnnctl trian configs/quickstart.yaml",
    "cnnctl train configs/quickstart.yaml -o solver.epochs=5",
    "cnnctl eval latest",
    "cnnctl plot latest --metric loss",
)
TITLE = "A terminal: cnnctl trains its quick start, scores it, and plots its loss"
CNNCTL = (sys.executable, "-m", "cnnctl")

PAGE_WIDTH, SCALE, GAP = 1120, 2, 24
COLORS = 128
"""In a picture of the report: it has few, and their shades."""
FIND_BOX = """(() => {
  const boxes = %s.map(e => e.getBoundingClientRect());
  const find = (end, side) => end(...boxes.map(box => box[side]));
  const left = find(Math.min, "left"), top = find(Math.min, "top");
  return [left, top, find(Math.max, "right") - left, find(Math.max, "bottom") - top];
})()"""
TOP = "[...document.querySelectorAll('h1, dl.figures, figure')].slice(0, 4)"
FILTERS = "[document.querySelector('img')]"
SCORES = "[document.querySelector('#scores ~ div table, #scores ~ table')]"
CONFUSION = "[document.querySelector('table.confusion')]"


def draw_terminal() -> None:
    """Play the session in a new folder that holds the configs, and write it down."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(HOUSE / "configs", folder / "configs")
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
        environment = {
            **kept,
            "HOME": name,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "LANG": "C.UTF-8",
        }
        commands = [(typed, [*CNNCTL, *typed.split()[1:]]) for typed in SESSION]
        drawing = render(play(record(commands, folder, environment, SIZE), SIZE), TITLE)
    for path in (name, str(HOUSE), str(Path.home())):
        if path in drawing:
            raise SystemExit(f"pictures: {path} would be seen in train.svg")
    # Numbers for what is not ASCII: a page that quotes it may have any encoding.
    (PICTURES / "train.svg").write_bytes(drawing.encode("ascii", "xmlcharrefreplace"))


def draw_report(run: Path | None) -> None:
    """Photograph the report of `run`, or of one that is trained for it, and draw its filters."""
    with tempfile.TemporaryDirectory() as name:
        if run is None:
            config = HOUSE / "configs" / "mnist_simple.yaml"
            subprocess.run([*CNNCTL, "train", str(config), "--runs-dir", name], check=True)
            run = next(Path(name).iterdir())
        if not (run / "report.html").is_file():
            raise SystemExit(f"pictures: {run} has no report.html; cnnctl report {run} writes one")
        photograph(run / "report.html", PICTURES / "report-light.png", dark=False)
        photograph(run / "report.html", PICTURES / "report-dark.png", dark=True)
        filters = Path(name) / "filters.png"
        options = ["--before-after", "--output", str(filters)]
        subprocess.run([*CNNCTL, "visualize-filters", str(run), *options], check=True)
        save(Image.open(filters), PICTURES / "filters.png")


def photograph(report: Path, picture: Path, *, dark: bool) -> None:
    """Cuttings: the head of the page with its first curves; filters and scores beside confusions."""
    program = find_browser()
    if program is None:
        raise SystemExit("pictures: a report is drawn by a Chromium; install one, as chromium-headless-shell")
    with Page(program, width=PAGE_WIDTH, dark=dark) as page:
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=PAGE_WIDTH,
            height=900,
            deviceScaleFactor=SCALE,
            mobile=False,
        )
        # They go when a picture is taken, and then everything would move.
        page.call("Emulation.setScrollbarsHidden", hidden=True)
        page.open(report)
        cuttings = (cut(page, elements) for elements in (TOP, FILTERS, SCORES, CONFUSION))
        top, filters, scores, confusion = cuttings
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    gap = SCALE * GAP
    room = top.width - confusion.width - 2 * gap
    filters = filters.resize((room, room * filters.height // filters.width))
    width = top.width + 2 * gap
    height = top.height + max(filters.height + gap + scores.height, confusion.height) + 3 * gap
    sheet = Image.new("RGB", (width, height), tuple(int(part) for part in paper[4:-1].split(",")))
    below = top.height + 2 * gap
    sheet.paste(top, (gap, gap))
    sheet.paste(filters, (gap, below))
    sheet.paste(scores, (gap, below + filters.height + gap))
    sheet.paste(confusion, (width - gap - confusion.width, below))
    save(sheet, picture)


def cut(page: Page, elements: str) -> Image.Image:
    """The part of a page that elements cover."""
    x, y, width, height = page.evaluate(FIND_BOX % elements)
    clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
    found = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    return Image.open(BytesIO(b64decode(found["data"]))).convert("RGB")


def save(image: Image.Image, path: Path) -> None:
    """As a small PNG that tells nothing of where it was made."""
    # The usual choice by frequency would mix a thin curve's colour with others.
    method = Image.Quantize.MAXCOVERAGE
    palette = image.convert("RGB").quantize(COLORS, method=method, dither=Image.Dither.NONE)
    palette.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description=__doc__.partition("\n")[0])
    parser.add_argument("which", nargs="?", choices=("terminal", "report"), help="all by default")
    parser.add_argument("--run", type=Path, help="a finished run of configs/mnist_simple.yaml")
    arguments = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    if arguments.which != "report":
        draw_terminal()
    if arguments.which != "terminal":
        draw_report(arguments.run)


if __name__ == "__main__":
    main()
