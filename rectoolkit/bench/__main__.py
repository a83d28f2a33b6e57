"""``python -m rectoolkit.bench``."""

from rectoolkit.bench import main

main()
