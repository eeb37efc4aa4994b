"""Run the BIDS App as ``python -m qsmflow``."""

from qsmflow.cli.run import main

if __name__ == '__main__':
    raise SystemExit(main())
