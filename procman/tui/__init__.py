"""The live view, `procman top`: a client of the control socket, drawn by Textual (docs/top.md)."""
