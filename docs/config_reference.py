"""The config reference, as Markdown: made from the JSON Schema, so that it says what the checks hold.

`write_config_reference` gives the page; whoever builds the docs puts it where it belongs. Only the examples
stand here, each a piece of YAML that a test checks; nothing about a field is written by hand.
"""

from collections.abc import Iterator
from typing import Any

from cnnctl.config.json_schema import create_run_schema
from cnnctl.config.strict_yaml import dump_line

Json = dict[str, Any]

SECTIONS = ("run", "data", "augment", "network", "solver", "group", "early_stopping", "checkpoints", "engine")
CHOICES = {
    "layer": ("Layers", "An item of `layers`, and of a residual block's `layers` and `shortcut`."),
    "loss": ("Losses", "What `network.loss` may be."),
    "init": ("Initializers", "What `init` may be, of a network and of a layer with weights."),
    "optimizer": ("Optimizers", "What `solver.optimizer` may be."),
    "schedule": ("Schedules", "What `solver.schedule` may be: what becomes of the learning rate."),
}
PLACES = {
    "run": "",
    "augment": "data.",
    "group": "solver.",
    "early_stopping": "solver.",
    "checkpoints": "solver.",
}
"""What stands before a section's name."""
TITLES = {"run": "A config", "group": "solver.groups"}

EXAMPLES = {
    "run": """\
name: my-run
data: {dataset: shapes, validation: 1000}
network: networks/quickstart.yaml
solver: {optimizer: adam, epochs: 10, batch_size: 64}
""",
    "data": """\
dataset: folder
path: pictures
image_size: 32
validation: 100
normalize: standardize
""",
    "augment": "{flip: true, crop: 4, padding: reflect, cutout: 8}",
    "network": """\
layers:
  - conv: {filters: 16, kernel: 3, padding: same}
  - relu
  - maxpool: 2
  - linear: 10
loss: softmax
init: he
""",
    "solver": """\
optimizer: {adamw: {lr: 2e-3, weight_decay: 0.05}}
schedule: {cosine: {min_scale: 0.01}}
warmup: 100
epochs: 30
batch_size: 32
clip_norm: 1.0
""",
    "group": '{match: "*.bias", weight_decay: 0, lr_scale: 2}',
    "early_stopping": "{patience: 5, min_delta: 1e-3}",
    "checkpoints": "{minutes: 10, keep: 3}",
    "engine": "{backend: fast, dtype: float32, threads: auto, seed: 231}",
    "layer.conv": "conv: {filters: 32, kernel: 3, padding: same, bias: false}",
    "layer.maxpool": "maxpool: {kernel: 3, stride: 2}",
    "layer.avgpool": "avgpool: 2",
    "layer.subsampling": "subsampling: 2",
    "layer.globalavgpool": "globalavgpool",
    "layer.linear": "linear: 100",
    "layer.flatten": "flatten",
    "layer.relu": "relu",
    "layer.leaky_relu": "leaky_relu: 0.1",
    "layer.elu": "elu: {alpha: 0.5}",
    "layer.tanh": "tanh",
    "layer.sigmoid": "sigmoid",
    "layer.gelu": "gelu: {name: bend}",
    "layer.silu": "silu",
    "layer.batchnorm": "batchnorm: {momentum: 0.05}",
    "layer.layernorm": "layernorm",
    "layer.groupnorm": "groupnorm: 8",
    "layer.instancenorm": "instancenorm",
    "layer.lrn": "lrn: {size: 5, alpha: 1e-4}",
    "layer.dropout": "dropout: {rate: 0.2, spatial: true}",
    "layer.residual": """\
residual:
  layers:
    - conv: {filters: 32, kernel: 3, stride: 2, padding: 1}
    - relu
  shortcut:
    - conv: {filters: 32, kernel: 1, stride: 2}
""",
    "loss.softmax": "softmax: {smoothing: 0.1}",
    "loss.hinge": "hinge: 1.0",
    "loss.squared_error": "squared_error",
    "init.constant": "constant: 0",
    "init.gaussian": "gaussian: 0.01",
    "init.xavier": "xavier: {distribution: uniform}",
    "init.he": "he: {fan: out}",
    "init.orthogonal": "orthogonal: {gain: 1.4}",
    "optimizer.sgd": "sgd: {lr: 0.1, momentum: 0.9, nesterov: true}",
    "optimizer.adam": "adam: {lr: 1e-3}",
    "optimizer.adamw": "adamw: {lr: 1e-3, weight_decay: 0.05}",
    "optimizer.adamax": "adamax",
    "optimizer.adagrad": "adagrad: {lr: 0.01}",
    "optimizer.rmsprop": "rmsprop: {lr: 1e-3, alpha: 0.9}",
    "optimizer.lion": "lion: {lr: 1e-4, weight_decay: 0.1}",
    "schedule.constant": "constant",
    "schedule.step": "step: {epochs: 10, gamma: 0.5}",
    "schedule.multistep": "multistep: [80, 120]",
    "schedule.exponential": "exponential: 0.95",
    "schedule.inverse": "inverse: {gamma: 1e-4, power: 0.75}",
    "schedule.polynomial": "polynomial: {power: 2}",
    "schedule.cosine": "cosine: {min_scale: 0.01}",
    "schedule.onecycle": "onecycle: {rise: 0.2}",
    "schedule.plateau": "plateau: {patience: 3, factor: 0.5}",
}
"""A piece of YAML for each definition of the schema."""

HEAD = """\
# Config reference

Every key that a config may have, made from the schema that `cnnctl config validate` checks by and
`cnnctl schema` prints for editors. A key without a default has to be given, unless a `base` gives it; the
`base` itself never has to be.

Where one of several kinds is chosen (a layer, a loss, an initializer, an optimizer, a schedule), write its
word, or the word with its settings: `relu`, `linear: {units: 100}`. Kinds that say so below take one value in
the place of their settings: `linear: 100`.
"""


def write_config_reference() -> str:
    """The page: a section for each section of a config, then one for each kind of what can be chosen."""
    definitions = create_run_schema()["$defs"]
    lines = [HEAD]
    for name in SECTIONS:
        title = TITLES.get(name, f"{PLACES.get(name, '')}{name}")
        lines += _write_definition(f"## {title}", name, definitions[name])
    for choice, (title, about) in CHOICES.items():
        lines += [f"({_anchor(choice)})=\n## {title}\n", f"{about}\n"]
        for kind in definitions[choice]["anyOf"][-1]["properties"]:
            lines += _write_definition(f"### {kind}", f"{choice}.{kind}", definitions[f"{choice}.{kind}"])
    return "\n".join(lines)


def _write_definition(heading: str, name: str, definition: Json) -> Iterator[str]:
    yield f"({_anchor(name)})=\n{heading}\n"
    yield f"{_escape(definition['description'])}\n"
    settings = next(form for form in definition.get("anyOf", [definition]) if "properties" in form)
    properties: dict[str, Json] = settings["properties"]
    yield f"```yaml\n{EXAMPLES[name].rstrip()}\n```\n"
    if not properties:
        yield "It has no settings.\n"
        return
    yield "| key | accepted | default | meaning |\n| --- | --- | --- | --- |"
    for key, about in properties.items():
        default = f"`{dump_line(about['default'])}`" if "default" in about else ""
        accepted = _escape(_describe(about))
        yield f"| `{key}` | {accepted} | {default} | {_escape(about['description'])} |"
    yield ""
    shorthand = [
        form for form in definition.get("anyOf", []) if form is not settings and form.get("type") != "null"
    ]
    for form in shorthand:
        key = next(
            key for key, about in properties.items() if {**about, "default": 0} == {**form, "default": 0}
        )
        yield f"`{name.rpartition('.')[2]}: {key.upper()}` is short for its `{key}`.\n"


def _describe(about: Json) -> str:
    """What may be written, in words."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name.replace('_', ' ')}](#{_anchor(name)})"
    if "anyOf" in about:
        return " or ".join(_describe(form) for form in about["anyOf"])
    if "enum" in about:
        return ", ".join(f"`{dump_line(value)}`" for value in about["enum"])
    if "const" in about:
        return f"`{about['const']}`"
    match about["type"]:
        case "array":
            count = "two" if about.get("maxItems") == 2 else "a list"
            return f"{count} of {_describe(about['items'])}"
        case "string":
            return f"text `{about['pattern']}`" if "pattern" in about else "text"
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
    return f"{about['type']}{_describe_range(about)}"


def _describe_range(about: Json) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    powers = {2**63: "2^63"}
    limits = [f"{sign} {powers.get(about[key], about[key])}" for key, sign in signs.items() if key in about]
    return f" {', '.join(limits)}" if limits else ""


def _anchor(name: str) -> str:
    return f"config-{name.replace('.', '-').replace('_', '-')}"


def _escape(text: str) -> str:
    """Not to be taken for a column's end or an emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")
