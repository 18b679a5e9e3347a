"""`python -m edgegen` and the console script: the command line, where Ctrl-C is met during its imports, too."""

from edgegen.support.signals import exit_codes


def main() -> None:
    """The console script."""
    with exit_codes():
        from edgegen.cli.main import run_app

        run_app()


if __name__ == "__main__":
    main()
