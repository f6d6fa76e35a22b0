"""`cnnctl convolve`: what well-known kernels make of photographs.

Passes names and files on, and says where pictures and numbers were written.
"""

from pathlib import Path

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import PATH, complete_backend, json_option


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl convolve photo.jpg",
        "cnnctl convolve photo.jpg --kernel edges --kernel my_kernel.yaml --backend naive --size 100",
    ),
)
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGE...")
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="NAME|FILE",
    help="grayscale, edges, sharpen, blur, or a YAML file with name, weight and bias; again for more.  "
    "[default: these four]",
)
@click.option(
    "--backend",
    default="fast",
    show_default=True,
    shell_complete=complete_backend,
    help="naive, im2col or fast.",
)
@click.option(
    "--size",
    type=click.IntRange(1, 4096),
    default=200,
    show_default=True,
    metavar="PIXELS",
    help="Reduce images to that on the longer side.",
)
@click.option(
    "--output",
    default="convolution.png",
    show_default=True,
    type=PATH,
    metavar="FILE",
    help="The PNG or SVG to write; each result goes beside it as a PNG, and a CSV of the numbers.",
)
@json_option
def convolve(
    images: tuple[str, ...], kernels: tuple[str, ...], backend: str, size: int, output: str, as_json: bool
) -> None:
    """Convolve each IMAGE with each kernel, and draw originals and results side by side.

    Edges are the horizontal ones, where 128 is none. Rows of weights (KH, KW) go over each channel by
    itself; nested as (F, C, KH, KW) they give F grey pictures.
    """
    from cnnctl.backends import create_backend
    from cnnctl.plot import convolution
    from cnnctl.plot.figure import check_picture_path

    picture = Path(output)
    check_picture_path(picture)
    chosen = convolution.find_kernels(kernels)
    engine = create_backend(backend)
    photos = [convolution.read_photo(Path(image), size) for image in images]
    for photo in photos:
        (H, W), (_, h, w) = photo.size, photo.pixels.shape
        if (h, w) != (H, W):
            display.note(f"{photo.path}: reduced from {W}x{H} to {w}x{h} pixels; --size has another limit")
    results = list(convolution.convolve_photos(photos, chosen, engine))
    files = convolution.draw_convolutions(photos, results, picture)
    numbers = convolution.save_result_numbers(photos, results, files, picture)
    if as_json:
        document = {"schema": 1, "command": "convolve", "backend": backend, "output": output}
        found = [
            {
                "image": str(photos[result.photo].path),
                "kernel": result.name,
                "file": str(file),
                **convolution.describe_result(result),
            }
            for result, file in zip(results, files, strict=True)
        ]
        display.print_json({**document, "numbers": str(numbers), "results": found})
        return
    for path in (picture, numbers, *files):
        display.print_text(str(path))
