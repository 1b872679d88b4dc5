"""``python -m ecomcharge`` is the command ``ecomcharge``."""

from ecomcharge.cli.main import main

main()
