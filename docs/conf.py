"""How Sphinx makes the documentation: MyST Markdown, the furo theme, references made from the code.

Writes docs/reference/ anew at each build. Loads nothing from the network: no fonts, no scripts, no
inventories of other projects.
"""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import cnnctl  # noqa: E402
from docs.command_reference import write_command_reference  # noqa: E402

project = "cnnctl"
author = "the cnnctl authors"
release = version = cnnctl.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["README.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

smartquotes_action = "D"  # dashes; quotation marks stay as they are

man_pages = [
    ("reference/commands", "cnnctl", "train, check and time convolutional networks on the CPU", author, 1)
]

html_theme = "furo"
html_title = "cnnctl"
html_static_path = ["static"]
html_css_files = ["cnnctl.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "github-dark"

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Types of other projects, and of ours what has no page of its own, stand there as words without a link.
INNER_TYPES = r"(backends|nn|optim)\.[a-z]+|config\.schema|train\.observer"
nitpick_ignore_regex = [("py:.*", r"(?!cnnctl\.).*"), ("py:.*", rf"cnnctl\.({INNER_TYPES})\..*")]

ITALIC_OR_REFERENCE = re.compile(r"([*|]|\b_(?=\W|$))")
CODE = re.compile(r"(`+)(.+?)\1", re.S)
SEVERAL = re.compile(r"^( {4,}\w+)((?:, \w+)+): ", re.M)
"""Attributes told of together: their names are no type and a name."""


def write_references() -> None:
    """Fill docs/reference/ from click's commands, and from the configs' schema where there is a writer."""
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    pages = {"commands.md": write_command_reference}
    if (DOCS / "config_reference.py").exists():
        pages["config.md"] = import_module("docs.config_reference").write_config_reference
    for name, write in pages.items():
        path, text = folder / name, write()
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # else Sphinx would read it again
            path.write_text(text, encoding="utf-8")


def quote_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make reStructuredText of plain text: `word` is code, and * and | in formulas are themselves."""
    text = SEVERAL.sub(lambda names: f"{names[1]}{names[2].replace(', ', '/')}: ", "\n".join(lines))
    quoted, end = "", 0
    for match in CODE.finditer(text):
        quoted += ITALIC_OR_REFERENCE.sub(r"\\\1", text[end : match.start()]) + f"``{match[2]}``"
        end = match.end()
    lines[:] = (quoted + ITALIC_OR_REFERENCE.sub(r"\\\1", text[end:])).split("\n")


def setup(app: Any) -> None:
    """Called by Sphinx: docstrings are quoted before napoleon reads their sections."""
    write_references()
    app.connect("autodoc-process-docstring", quote_docstring, priority=400)
