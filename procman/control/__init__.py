"""Control of a running procman from other programs (docs/control-protocol.md)."""
