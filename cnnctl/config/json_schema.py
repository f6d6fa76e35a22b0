"""JSON Schema (draft 2020-12) of configs and of network files: what an editor needs to complete and to check.

Made from the models, so that there is one place where a field is described. Knows the three ways to
write a kind, `base:`, and a network that is a file name. A file with a `base` may leave out what that
brings. Says of each value what the models say of it; what has to hold between values (groups that divide
the filters, a name given once) is left to them, and so is 1.0 where an integer is wanted: to JSON it is one.
"""

import json
from inspect import cleandoc, isclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from cnnctl.config.fields import Kind, Section
from cnnctl.config.network import NetworkConfig
from cnnctl.config.schema import RunConfig

Json = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILE_NAME = {"type": "string", "minLength": 1}


def create_run_schema() -> Json:
    """Of a run's config, as in configs/*.yaml."""
    definitions: Json = {}
    run = _describe_section(RunConfig, definitions)
    network = run["properties"]["network"]
    run["properties"]["network"] = {
        "description": network.pop("description"),
        "anyOf": [{**FILE_NAME, "description": "a file with layers, relative to this one"}, network],
    }
    return _finish("cnnctl config", "run", run, definitions)


def create_network_schema() -> Json:
    """Of a network in a file of its own, as in configs/networks/*.yaml."""
    definitions: Json = {}
    return _finish("cnnctl network", "network", _describe_section(NetworkConfig, definitions), definitions)


SCHEMAS = {"run": create_run_schema, "network": create_network_schema}
"""What there is a schema of."""


FILES = {"run": "cnnctl.schema.json", "network": "cnnctl-network.schema.json"}
"""What its file is called, beside the files that it is the schema of."""


def dump_schema(schema: Json) -> str:
    """As its file holds it."""
    return json.dumps(schema, indent=1, allow_nan=False) + "\n"


def format_schema_line(file: str) -> str:
    """The line at the top of a YAML file by which editors find that schema beside it."""
    return f"# yaml-language-server: $schema={file}\n"


def _finish(title: str, name: str, whole: Json, definitions: Json) -> Json:
    base = {**FILE_NAME, "description": "another file to inherit from, relative to this one"}
    whole["properties"] = {"base": base, **whole["properties"]}
    return {
        "$schema": DIALECT,
        "title": title,
        "if": {"type": "object", "required": ["base"]},
        "then": _relax(whole, definitions),
        "else": {"$ref": f"#/$defs/{name}"},
        "$defs": {name: whole, **dict(sorted(definitions.items()))},
    }


def _relax(schema: Json, definitions: Json) -> Json:
    """The same for what is merged with what is inherited: a key may be missing. Lists are replaced whole."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        relaxed = _relax(target, definitions)
        return schema if relaxed == target else {**relaxed, **{k: schema[k] for k in schema if k != "$ref"}}
    relaxed = {key: value for key, value in schema.items() if key != "required"}
    if "properties" in schema:
        relaxed["properties"] = {k: _relax(v, definitions) for k, v in schema["properties"].items()}
    if "anyOf" in schema:
        relaxed["anyOf"] = [_relax(form, definitions) for form in schema["anyOf"]]
    return relaxed


def _describe_section(section: type[Section], definitions: Json) -> Json:
    """A mapping with its keys, whether or not it is one of several kinds."""
    fields = section.model_fields
    described: Json = {
        "description": cleandoc(section.__doc__ or ""),
        "type": "object",
        "properties": {key: _describe_field(key, field, definitions) for key, field in fields.items()},
        "additionalProperties": False,
    }
    required = [key for key, field in fields.items() if field.is_required()]
    return {**described, "required": required} if required else described


def _describe_field(key: str, field: FieldInfo, definitions: Json) -> Json:
    described = {"description": field.description, **_describe_type(key, field, definitions)}
    if field.is_required():
        return described
    default = field.default
    if isinstance(default, Section):
        default = default.model_dump(mode="json", exclude_defaults=True)
    return {**described, "default": list(default) if isinstance(default, tuple) else default}


def _describe_type(key: str, field: FieldInfo, definitions: Json) -> Json:
    """What may be written: sections and kinds by their definition, all else as pydantic has it."""
    sections = _find_sections(field.annotation)
    if not sections:
        hint: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        return _unify_items(TypeAdapter(hint).json_schema())
    is_list = get_origin(field.annotation) is tuple
    name = key.removesuffix("s") if is_list else key
    described = _define(name, sections, definitions)
    if is_list:
        limits: Any = field.json_schema_extra or {}  # what a validator sees to, in pydantic's place
        return {"type": "array", "items": described, **limits}
    is_optional = type(None) in get_args(field.annotation)
    return {"anyOf": [described, {"type": "null"}]} if is_optional else described


def _find_sections(hint: Any) -> list[type[Section]]:
    """The sections that a type is made up of: one, those of a choice, or none."""
    if isclass(hint) and issubclass(hint, Section):
        return [hint]
    parts = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return [section for part in parts for section in _find_sections(part)]


def _define(name: str, sections: list[type[Section]], definitions: Json) -> Json:
    """A reference to the definition of one section, or of a choice among kinds, made where there is none."""
    kinds = [section for section in sections if issubclass(section, Kind)]
    name = "layer" if name == "shortcut" else name  # the one choice that two fields have under two names
    if name not in definitions:
        definitions[name] = {}  # in the place of what may refer to itself
        definitions[name] = (
            _describe_choice(name, kinds, definitions)
            if kinds
            else _describe_section(sections[0], definitions)
        )
    return {"$ref": f"#/$defs/{name}"}


def _describe_choice(name: str, kinds: list[type[Kind]], definitions: Json) -> Json:
    """The word, {word: settings} or {word: shorthand}."""
    words, settings = [], {}
    for kind in kinds:
        described = _describe_section(kind, definitions)
        about = {"description": described["description"]}
        forms = [described]
        if kind.shorthand:
            forms.append(described["properties"][kind.shorthand])
        if "required" not in described:
            words.append({"const": kind.kind, **about})
            forms.append({"type": "null"})
        definitions[f"{name}.{kind.kind}"] = {**about, "anyOf": forms} if len(forms) > 1 else described
        settings[kind.kind] = {"$ref": f"#/$defs/{name}.{kind.kind}"}
    one_key = {"minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    return {"anyOf": [*words, {"type": "object", "properties": settings, **one_key}]}


def _unify_items(schema: Json) -> Json:
    """Items that are all alike, [height, width], said once: in a way that older editors know as well."""
    if "prefixItems" in schema:
        return {**{k: v for k, v in schema.items() if k != "prefixItems"}, "items": schema["prefixItems"][0]}
    return {**schema, "anyOf": list(map(_unify_items, schema["anyOf"]))} if "anyOf" in schema else schema
