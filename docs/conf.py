"""Configuration of the documentation."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.ext.napoleon.docstring import NumpyDocstring

# A copy, since links between notebooks are looked up where they really are, and these lie beside the documentation.
HERE = Path(__file__).parent
shutil.copytree(
    HERE.parent / "tutorials",
    HERE / "tutorials",
    ignore=lambda _, names: [n for n in names if not n.endswith(".ipynb")],
    dirs_exist_ok=True,
)

FIGURES = HERE / "_static" / "figures"


def write_figures() -> None:
    """Write what the tutorials show: for each card its cell with the tag `thumbnail`, for each function of `pl` the first."""
    shutil.rmtree(FIGURES, ignore_errors=True)
    FIGURES.mkdir()
    listed = re.findall(r":link: tutorials/(\w+)", (HERE / "tutorials.md").read_text(encoding="utf-8"))
    for file in (HERE / "tutorials" / f"{name}.ipynb" for name in listed):
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            images = [o["data"]["image/png"] for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
            names = re.findall(r"\bul\.(pl\.\w+)\(", "".join(cell["source"]))
            names += [file.stem] if "thumbnail" in cell["metadata"].get("tags", ()) else []
            for place in (FIGURES / f"{name}.png" for name in names if images):
                if not place.exists():
                    place.write_bytes(base64.b64decode(images[-1]))


write_figures()

info = metadata("unlasting")
project = info["Name"]
author = "The unlasting authors"
copyright = f"2026, {author}"
version = release = info["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
default_role = "literal"
nitpicky = True

autosummary_generate = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
typehints_defaults = "comma"
typehints_document_rtype_none = False
always_use_bars_union = True

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are committed with their results

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_extra_path = ["llms.txt"]
html_css_files = ["custom.css"]
html_favicon = "_static/logo.svg"
html_theme_options = {
    "logo": {"image_light": "_static/logo_light.svg", "image_dark": "_static/logo_dark.svg", "alt_text": project},
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    # a button on each tutorial; it works once the repository is public
    "repository_url": "https://github.com/unlasting/unlasting",
    "repository_branch": "main",
    "path_to_docs": "",
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
}
html_math_renderer = "mathml"  # read by the browser itself, with no script from another site
toc_object_entries_show_parents = "hide"

# Links to other projects need the network, which a build must not: they are made where the site is published.
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable", None),
    }

# Names of other projects, and private ones of this, need no target; public names do.
nitpick_ignore_regex = [(r"py:.*", r"(?!unlasting\b).*"), (r"py:.*", r"unlasting\..*\b_\w+.*")]


def skip_foreign_members(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a class inherits from other packages: they document it."""
    source = getattr(obj, "fget", None) or getattr(obj, "__func__", None) or obj
    module = getattr(source, "__module__", None)
    return True if module and not module.startswith("unlasting") else None


def returns_as_text(self: Any, section: str) -> list[str]:
    """Leave what is returned as it was written: types are in the signature, and keys that are written are a list."""
    lines = self._dedent(self._consume_to_next_section())
    return self._format_block(":returns: ", lines[1:] if lines[:1] == [":"] else lines)  # autodoc-typehints adds ":"


def add_figure(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Show a figure of the tutorials with the function that drew it."""
    name = name.removeprefix("unlasting.")
    if (FIGURES / f"{name}.png").exists():
        lines += [
            "",
            f".. image:: /_static/figures/{name}.png",
            f"   :alt: A figure of {name}",
            "   :class: from-notebook",
        ]


def visit_math(self: Any, node: nodes.math) -> None:
    """Write a formula in a line as MathML."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    """Write a formula of its own as MathML; a wide one can be scrolled."""
    self.body.append(
        f'<div class="formula" style="margin: 1em 0; overflow-x: auto">{tex2mathml(node.astext(), as_block=True)}</div>'
    )
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("autodoc-skip-member", skip_foreign_members)
    app.connect("autodoc-process-docstring", add_figure, priority=900)  # after the sections are parsed
    app.add_html_math_renderer("mathml", inline_renderers=(visit_math, None), block_renderers=(visit_math_block, None))
    NumpyDocstring._parse_returns_section = returns_as_text
