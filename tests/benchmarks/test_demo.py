"""What ``make demo`` says at its end."""

from __future__ import annotations

import demo
from spherequant.service.settings import Settings


def test_it_ends_by_saying_how_to_open_the_page(capsys):
    demo._print_next([".venv/bin/spherequant"], "demo/index")
    told = capsys.readouterr().out
    assert "  .venv/bin/spherequant serve demo/index\n" in told
    assert f"open http://{Settings.host}:{Settings.port}/\n" in told
