"""The command ``spherequant``: one thin file a verb.

    verbs      the verbs together, and the one way out of every failure
    answers    queries of the shell, asked of a folder or a service
    options    arguments that several verbs share
    output     what goes to stdout and stderr
    progress   how far a long run has come

A verb imports what it needs when it runs, so that ``spherequant --help`` loads no torch.
"""

from __future__ import annotations

from spherequant.cli.verbs import app, main

__all__ = ["app", "main"]
