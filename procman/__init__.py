"""procman: a Procfile process manager. See docs/architecture.md for the floors and rooms."""

__version__ = "0.1.0"
