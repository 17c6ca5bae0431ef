"""The site that `make docs` builds: Sphinx with MyST, a warning is an error."""

project = "NeuralFuse simulator"
extensions = ["myst_parser"]
myst_heading_anchors = 3
highlight_language = "sh"
html_theme = "furo"
html_title = "NeuralFuse simulator"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
