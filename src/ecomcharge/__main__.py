"""``python -m ecomcharge`` is the command ``ecomcharge``."""

from ecomcharge.cli.main import main

if __name__ == "__main__":
    main()
