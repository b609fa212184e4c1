"""`python -m procman` is the command `procman`."""

from procman.cli.main import main

if __name__ == "__main__":
    main()
