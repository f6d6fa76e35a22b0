"""The report's page: whole, by itself, and usable in a real browser by pointer and by keyboard."""

import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from cnnctl.nn import SummaryRow
from cnnctl.plot.report import Chart, Line, Picture, Report, Table, render_report, write_report
from tests.plot.browser import Page, find_browser

VOID = {"meta", "link", "img", "br"}
STEPS = list(range(1, 1201))


def draw_png(color: tuple[int, int, int]) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (60, 20), color).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def report() -> Report:
    loss = [2.0 / step for step in STEPS]
    return Report(
        title="run <1> & more",
        lead="finished after 1,200 steps",
        figures={"test accuracy": "98.88 %"},
        input_shape=(1, 28, 28),
        layers=[
            SummaryRow("conv1", "conv", (30, 24, 24), 780, 432_000),
            SummaryRow("relu1", "relu", (30, 24, 24), 0, 0),
        ],
        charts=[
            Chart(
                "Loss",
                "step",
                (
                    Line("a step", STEPS, loss, is_raw=True),
                    Line("training", STEPS, loss),
                    Line("val", [600, 1200], [0.5, 0.25], 1),
                ),
            ),
            Chart("Rate", "step", (Line("rate", [1, 2, 3], [1e-2, 1e-3, 1e-4]),), is_log=True),
            Chart("Nothing", "epoch", ()),
        ],
        classes=["cat", "dog"],
        confusion=[[3, 1], [0, 4]],
        scores=Table("Scores", ("split", "loss"), [("test", 0.25)]),
        filters=[Picture(draw_png((200, 10, 10)), "filters of conv1")],
        mistakes=[Picture(draw_png((10, 10, 200)), "mistakes")],
        config="name: <x>\n",
        environment={"backend": "fast", "command": ["cnnctl", "train"]},
        commands=["cnnctl train config.yaml"],
        notes={"Mistakes": "none & nothing"},
    )


class Reader(HTMLParser):
    """Finds tags that do not close, names used twice, and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open_tags.append(tag)
        facts = dict(attributes)
        self.names += [facts["id"]] if "id" in facts else []
        self.addresses += [facts[key] for key in ("src", "href") if key in facts]

    def handle_startendtag(self, tag, attributes):
        assert tag in {"line", "polyline", "circle"}

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_is_well_formed_and_by_itself(report: Report) -> None:
    page = render_report(report)
    reader = Reader()
    reader.feed(page)
    assert reader.open_tags == []
    assert len(set(reader.names)) == len(reader.names)
    assert all(re.match(r"data:|#", address) for address in reader.addresses)
    assert not re.search(r"@import|url\(|https?://", page)
    assert {address[1:] for address in reader.addresses if address[0] == "#"} <= set(reader.names)
    for text in ("run <1> & more", "name: <x>", "none & nothing", "432,000", "98.88 %"):
        assert text in reader.text
    assert render_report(report) == page


def test_a_chart_stands_where_its_numbers_are(report: Report) -> None:
    page = render_report(report)
    first, last = re.search(r'series-1" points="([\d.]+,[\d.]+) ([\d.]+,[\d.]+)"', page).groups()
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in (first, last))
    assert x1 == pytest.approx(70 + 599 / 1199 * 560, abs=0.06)
    assert x2 == 630
    # from 0 to 2 along 212 pixels
    assert y2 - y1 == pytest.approx(0.25 / 2 * 212, abs=0.11)
    decades = re.search(r'series-0" points="([^"]+)"', page.partition("Rate")[2])[1].split()
    heights = [float(point.split(",")[1]) for point in decades]
    assert heights == pytest.approx([10, 116, 222])


def test_a_long_line_is_thinned_and_keeps_its_ends(report: Report) -> None:
    points = re.search(r'series-0" points="([^"]+)"', render_report(report))[1].split()
    assert len(points) <= 501
    assert points[0].startswith("70.0,")
    assert points[-1].startswith("630.0,")


def test_what_is_not_finite_is_left_out() -> None:
    chart = Chart("Loss", "step", (Line("loss", [1, 2, 3], [1.0, float("nan"), float("inf")]),))
    assert "nan" not in render_report(Report("x", "", {}, (1,), [], [chart])).partition("<main>")[2].lower()


needs_browser = pytest.mark.skipif(find_browser() is None, reason="no headless browser is installed")


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(report: Report, tmp_path: Path, dark: bool) -> None:
    path = tmp_path / "report.html"
    write_report(report, path)
    with Page(find_browser(), dark=dark) as page:
        page.open(path)
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
        assert page.evaluate("[...document.images].map((image) => image.naturalWidth)") == [60, 60]
        assert page.evaluate("document.querySelectorAll('svg polyline').length") == 4
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") != dark
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        box = page.evaluate(
            "(() => { const b = document.querySelector('svg').getBoundingClientRect();"
            " return [b.left, b.top, b.width, b.height] })()"
        )
        page.move_pointer(box[0] + box[2] * 70 / 640, box[1] + box[3] / 2)
        output = "document.querySelector('figure output').textContent"
        assert page.evaluate(output) == "step 1: training 2, val 0.5"

        for _ in range(40):
            page.press("Tab")
            if page.evaluate("document.activeElement.matches('figure[data-chart]')"):
                break
        assert page.evaluate(output) == "step 1: training 2, val 0.5"
        page.press("End")
        assert page.evaluate(output) == "step 1200: training 0.001667, val 0.25"
        page.press("ArrowLeft")
        assert page.evaluate(output).startswith("step 1198: ")
        assert page.complaints == []


@needs_browser
def test_on_a_narrow_screen_nothing_sticks_out(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(report, path)
    with Page(find_browser(), width=360, height=700) as page:
        page.open(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
