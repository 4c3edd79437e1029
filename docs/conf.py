"""Configuration of the documentation."""

from __future__ import annotations

import os
from importlib.metadata import metadata
from typing import Any

info = metadata("unlasting")
project = info["Name"]
author = "The unlasting authors"
copyright = f"2026, {author}"
version = release = info["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
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
always_use_bars_union = True

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are committed with their results

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2}

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

# Names of other projects need no target; names of this one do.
nitpick_ignore_regex = [(r"py:.*", r"(?!unlasting\b).*")]


def skip_foreign_members(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a class inherits from other packages: they document it."""
    source = getattr(obj, "fget", None) or getattr(obj, "__func__", None) or obj
    module = getattr(source, "__module__", None)
    return True if module and not module.startswith("unlasting") else None


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("autodoc-skip-member", skip_foreign_members)
