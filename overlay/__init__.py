"""Builds of the overlay: one TOML file a board, templates, and overlay/build.py that renders and runs them."""
