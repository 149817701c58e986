"""A group of commands whose modules are imported when one is invoked, not to list them.

Importing them all takes seconds: SQLAlchemy, pynetdicom, Keras.
"""

import gc
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group


class LazyCommands(Mapping[str, Any]):
    """The commands of an application by name; looking one up imports ``commands.<module>``.

    The module's ``app`` holds the command or, where the app has a callback, is the command group.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module = self._modules[name]
            gc.disable()  # imports allocate much and free little: this saves a tenth of the start
            try:
                self._loaded |= get_group(_application(f"commands.{module}", name)).commands
            finally:
                gc.freeze()  # what was imported stays: later collections need not examine it
                gc.enable()
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


def _application(module: str, name: str) -> typer.Typer:
    app: typer.Typer = import_module(module).app
    whole = typer.Typer(rich_markup_mode=None)
    if app.registered_callback:
        whole.add_typer(app, name=name)
    else:
        whole.registered_commands += app.registered_commands
    return whole


class LazyGroup(TyperGroup):
    """The overview and the completion of commands' names, from ``sections`` alone."""

    sections: Mapping[str, Mapping[str, tuple[str, str]]] = {}
    """By heading and command's name: its module and its summary, one line.

    A name of two words takes precedence over a command that is named like the first of them.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands(  # type: ignore[assignment]
            {name: module for name, (module, _) in self._listed()}
        )

    def _listed(self) -> Iterator[tuple[str, tuple[str, str]]]:
        for commands in self.sections.values():
            yield from commands.items()

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the overview's order."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that the first word names, or the first two, and what follows."""
        two_words = " ".join(args[:2])
        if len(args) > 1 and two_words in list(self.commands):
            return two_words, self.commands[two_words], args[2:]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the overview, one section per heading."""
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, summary) for name, (_, summary) in commands.items()])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The commands whose names begin so, with their summaries; no second words."""
        from typer.core import CompletionItem  # type: ignore[attr-defined]

        return [
            CompletionItem(name, help=summary)
            for name, (_, summary) in self._listed()
            if name.startswith(incomplete) and " " not in name
        ]
