"""`python -m edgegen`: the command line, where its console script is not on the path."""

from edgegen.cli.main import main

if __name__ == "__main__":
    main()
