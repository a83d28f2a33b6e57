"""``python -m rectoolkit.cli``: the same as ``rectool``."""

from rectoolkit.cli import main

main(prog_name="rectool")
