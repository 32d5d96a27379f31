"""The site: `make docs`. Pages, notebooks and README are read where they stand.

The sources are the repository's root, so that links between them are those that work
without a site, too. The reference of modules is made here, from their docstrings.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
os.environ |= {"GENGEN_NOTEBOOK_STEPS": "10", "JAX_PLATFORMS": "cpu"}

project, author = "gengen", "the authors of gengen"
root_doc = "docs/index"
include_patterns = ["README.md", "docs/**", "notebooks/*.ipynb"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "reference"]

html_theme, html_title = "sphinx_book_theme", "gengen"
html_theme_options = {"show_navbar_depth": 1, "show_toc_level": 2}
html_copy_source = False

myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
