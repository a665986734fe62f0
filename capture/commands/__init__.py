"""The commands of `python -m capture`, one module for each group; `capture.command` joins them."""
