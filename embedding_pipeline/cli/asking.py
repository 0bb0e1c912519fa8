"""Asking a person before something is spent or removed.

Belongs here: the question, and what its answer means. Does not belong here: what is asked about.
"""

import click


def go_on(question: str) -> None:
    """Return when a person says yes.

    Raises:
        Exit: the answer was no; nothing is done, and the exit code is 1.
        UsageError: there is nobody to answer.
        Abort: Ctrl-C.
    """
    try:
        yes = click.confirm(question, err=True)
    except click.Abort as exc:
        if isinstance(exc.__context__, EOFError):
            raise click.UsageError("nobody can answer here; add --yes to go on") from exc
        raise
    if not yes:
        click.echo("Nothing was done.", err=True)
        raise click.exceptions.Exit(1)
