"""Measurements: what `speckv demo`, `speckv eval` and `speckv bench` run. Each returns numbers; `cli` shows them."""
