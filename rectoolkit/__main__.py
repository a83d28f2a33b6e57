"""``python -m rectoolkit``: the same as ``rectool``."""

from rectoolkit.cli import main

main(prog_name="rectool")
