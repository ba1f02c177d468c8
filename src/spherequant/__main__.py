"""``python -m spherequant``: the command, where no script was installed."""

from spherequant.cli import main

main()
