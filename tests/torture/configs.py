"""S1 for YAML: configs damaged byte by byte and line by line load to one that can be written down, or not.

Some damage is known to be none that may load: a key twice, a tag, a bomb of aliases. That has to be refused.
"""

import re
from collections.abc import Callable
from functools import cache
from random import Random

from cnnctl.config import RunConfig, config_from_dict, config_to_dict, dump_config, load_config
from cnnctl.config.strict_yaml import parse_yaml
from tests.torture.guard import guard, make_ground
from tests.torture.mutations import draw_stream, mutate
from tests.torture.tally import Mismatch, Tally

RUN = """\
# All that a run can say.
name: small
data:
  dataset: folder
  path: images
  image_size: [32, 24]
  validation: 500
  normalize: standardize
  augment: {flip: true, shift: 2, cutout: 4, mixup: 0.2}
network: network.yaml
solver:
  optimizer: {adam: {lr: 1e-3, beta1: 0.9}}
  schedule: {step: {epochs: 2, gamma: 0.5}}
  epochs: 3
  batch_size: 100
engine: {backend: fast, dtype: float32, threads: auto, seed: 231}
"""
HEIR = """\
base: run.yaml
data: {dataset: mnist, path: ~, image_size: ~}
network:
  layers: &all
    - conv: &conv {filters: 4, kernel: [3, 5], padding: same}
    - conv: *conv
    - "relu"
    - linear: !0
  loss: softmax
solver:
  optimizer: {sgd: {lr: .1}}
"""
NETWORK = """\
layers:
  - conv: {filters: 16, kernel: 3, padding: same, bias: false}
  - batchnorm
  - relu
  - residual:
      layers:
        - conv: {filters: 16, kernel: 3, padding: same}
        - lrn
      shortcut: [{conv: {filters: 16, kernel: 1}}, {dropout: {rate: 0.5}}]
  - maxpool: {kernel: 2, stride: 2}
  - linear: 10
init: {gaussian: 0.01}
loss: softmax
"""
NAMES = ("run.yaml", "heir.yaml", "network.yaml")
TOKENS = (
    *(
        b"!!python/object/apply:os.system [true]",
        b"!!int 3",
        b"!x ",
        b"*conv",
        b"&all ",
        b"&a [*a]",
        b"<<: *conv",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b": ",
        b"- ",
        b"? ",
        b", ",
        b"#",
        b"---",
        b"...",
        b"%YAML 1.1",
        b"|",
        b">",
        b"@",
    ),
    *(
        b"\n",
        b"\r",
        b"\t",
        b"\0",
        b"\xff",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xef\xbb\xbf",
        b"'",
        b'"',
        b'"\\x00"',
    ),
    *(b'"\\ud800"', b".inf", b".nan", b"1e999", b"1e-400", b"9" * 20, b"0x10", b"1_000", b"2026-01-01"),
    *(
        b"base: run.yaml",
        b"base: heir.yaml",
        b"base: nowhere.yaml",
        b"base: .",
        b"network: run.yaml",
        b"~root",
    ),
)
SCALARS = (
    *("0", "1", "2", "3", "7", "64", "-1", "0.5", "1.5", "1e-3", "1e999", "9223372036854775807"),
    *("18446744073709551616", "''", "true", "no", "~", "same", "[3]", "[]", "{}", "[[[3]]]", "{a:1}"),
    *("mnist", "shapes", "npz", "softmax", "hinge", "adam", "sgd", "rmsprop", "cosine", "plateau"),
    *("onecycle", "xavier", "he", "relu", "elu", "lrn", "maxpool", "float64", "naive", "../.."),
    *("run.yaml", "heir.yaml", "network.yaml", "."),
    '"\\u20ac"',
)
COUNT = re.compile(r"((?:batch_size|filters): )[0-9]+")
NO_COUNTS = ("9" * 5000, "1" + "0" * 21, "1e999", "-1", "0", ".nan", "0x10", "1_0", '"3"', "yes", "~", "[]")
SCALAR = re.compile(r"(?<=: )[\w.-]+")
LEAF = re.compile(r"^( *)(\w+): (?![{\[&]).+$", re.M)
VALUE = re.compile(r"(?<=: )(?:[\w.-]+)$", re.M)


def check_yaml(seed: int, number: int, tally: Tally) -> None:
    """One file of a config and its network, damaged; the run that begins with it is loaded."""
    rng = draw_stream(seed, number)
    ground = make_ground("yaml")
    files = create_files()
    name = rng.choice(NAMES)
    kind = rng.choice(("damaged", "edited", "edited", rng.choice(list(FORBIDDEN))))
    if kind == "damaged":
        damaged = mutate(rng, files[name], list(files.values()), TOKENS)
    else:
        damaged = FORBIDDEN.get(kind, _edit)(rng, files[name].decode()).encode("utf-8", "surrogateescape")
    for other, content in {**files, name: damaged}.items():
        (ground / other).write_bytes(content)
    first = ground / ("run.yaml" if name == "network.yaml" else name)
    outcome = guard(lambda: load_config(first), ground, tally)
    if outcome.refusal is None:
        if kind in FORBIDDEN:
            raise Mismatch(f"{name} with {kind} was accepted: {damaged!r}")
        check_config(outcome.value)
    tally.counts[f"{kind} {'refused' if outcome.refusal else 'accepted'}"] += 1
    tally.counts["cases"] += 1


def check_config(config: RunConfig) -> None:
    """It can be written down and read again."""
    if config_from_dict(config_to_dict(config)) != config:
        raise Mismatch(f"{config!r} is another after it was written down")
    if parse_yaml(dump_config(config), "again").to_data() != config_to_dict(config):
        raise Mismatch(f"{config!r} is other YAML after it was written down")


@cache
def create_files() -> dict[str, bytes]:
    """The whole files. Loads them once, so that what is imported late is there before it is watched."""
    texts = dict(zip(NAMES, (RUN, HEIR.replace("!0", "10"), NETWORK), strict=True))
    ground = make_ground("yaml")
    for name, text in texts.items():
        (ground / name).write_text(text)
    for name in NAMES[:2]:
        check_config(load_config(ground / name))
    return {name: text.encode() for name, text in texts.items()}


def _edit(rng: Random, text: str) -> str:
    """Lines moved, left out, indented, or given another value: still YAML as a rule."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines.insert(rng.randrange(len(lines)), lines.pop(at))
            case 1:
                lines[at] = ""
            case 2:
                lines[at] = rng.choice(("  ", "    ", "- ", "")) + lines[at].removeprefix("  ")
            case 3:
                lines[at] = SCALAR.sub(lambda _: rng.choice(SCALARS), lines[at], 1)
            case _:
                values = SCALAR.findall(lines[at]) or [""]
                lines[at] = lines[at].replace(rng.choice(values), rng.choice(SCALARS), 1)
    return "\n".join(lines)


def _repeat_key(rng: Random, text: str) -> str:
    leaf = rng.choice(list(LEAF.finditer(text)))
    return f"{text[: leaf.end()]}\n{leaf[0]}{text[leaf.end() :]}"


def _rename_key(rng: Random, text: str) -> str:
    leaf = rng.choice([leaf for leaf in LEAF.finditer(text) if leaf[2] != "base"])
    return text[: leaf.end(2)] + rng.choice("_x1é") + text[leaf.end(2) :]


def _put_value(rng: Random, text: str, value: str) -> str:
    place = rng.choice(list(VALUE.finditer(text)))
    return text[: place.start()] + value + text[place.end() :]


def _put_tag(rng: Random, text: str) -> str:
    tags = (
        "!!python/object/apply:os.system [id]",
        "!!python/name:os.system",
        "!!int 3",
        "!<x> 3",
        "!x 3",
        "! 3",
    )
    return _put_value(rng, text, rng.choice(tags))


def _nest(rng: Random, text: str) -> str:
    depth = rng.choice((32, 33, 100, 1000, 5000))
    opened, closed = rng.choice((("[", "]"), ("{a: ", "}"), ("- ", "")))
    return (
        f"{text}bomb: {opened * depth}{closed * depth}\n" if closed else f"{text}bomb:\n  {opened * depth}\n"
    )


def _multiply(rng: Random, text: str) -> str:
    """Nine levels of nine, or of what it takes for the same."""
    width, levels = rng.choice(((9, 9), (2, 31), (1000, 3), (20_001, 1)))
    bomb = [f"a0: &a0 [{', '.join('x' * width)}]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join([*bomb, text])


FORBIDDEN: dict[str, Callable[[Random, str], str]] = {
    "a key twice": _repeat_key,
    "an unknown key": _rename_key,
    "a tag": _put_tag,
    "depth": _nest,
    "a bomb": _multiply,
    "a merge key": lambda rng, text: f"{text}<<: {rng.choice(('{}', '*conv', '[]'))}\n",
    "two documents": lambda rng, text: f"{text}---\n{rng.choice((text, 'a: 1', ''))}",
    "a control character": lambda rng, text: _put_value(
        rng, text, rng.choice(("a\0", '"\\0"', "a\x1b[2J", '"\\x9b"', "a\x7f", '"\\u202e\\0"', "\ufffe"))
    ),
    "no count": lambda rng, text: COUNT.sub(rf"\g<1>{rng.choice(NO_COUNTS)}", text),
    "a large file": lambda rng, text: f"{text}#{' ' * 2**20}\n",
    "no UTF-8": lambda rng, text: _put_value(rng, text, "\udcff"),
}
