"""Commands of two words: `edgegen slim plan ...` beside `edgegen slim RECIPE`."""

from typing import Any

from typer.core import TyperGroup


class TwoWords(TyperGroup):
    """Where the first two words are a command's name they name it, else the first one does."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        both = " ".join(args[:2])
        return super().resolve_command(ctx, [both, *args[2:]] if both in self.commands else args)
