"""Settings of Sphinx: ``sphinx-build -W docs docs/_build`` where the project is installed."""

from __future__ import annotations

from importlib.metadata import version as distribution_version

project = "shared-registry"
author = "The shared-registry authors"
copyright = author
release = version = distribution_version("shared-registry")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "speed/*.md"]  # tables that pages include
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# A reference that leads nowhere is an error, as every warning is under -W.
nitpicky = True
nitpick_ignore_regex = [
    # Names of the standard library have no page here: the build asks nothing of the network.
    ("py:.*", r"(?!registry).*"),
    # Nor have private names, and what is for type checkers only.
    ("py:.*", r".*\._\w+.*|.*\.(R|T|T_co|Steps)"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# There are two of this name. Signatures that mean the one of `registry.aio` say so.
autodoc_type_aliases = {"ManagerClient": "registry.client.ManagerClient"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Several classes have an attribute `object`; each as a target of its own would be one name for many.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"shared-registry {release}"
