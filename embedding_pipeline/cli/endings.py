"""How a command ends: with an exit code, and at most one message instead of a traceback.

Belongs here: the table of exit codes and the translation of exceptions into them. Does
not belong here: what any command does.
"""

import errno
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from embedding_pipeline.errors import ConfigurationError, EmbeddingPipelineError, SettingsError

PROGRAM: Final = "embedding-pipeline"
FAILED: Final = 1
USAGE: Final = 2
BUG: Final = 70
INTERRUPTED: Final = 130

EXIT_CODES: Final = (
    (0, "done"),
    (FAILED, "failed: a run, a check or doctor found something wrong"),
    (USAGE, "settings, keys, options: somebody has to change something"),
    (3, "the source cannot be read"),
    (4, "the provider did not deliver"),
    (5, "the state store cannot be used"),
    (6, "a dataset is missing, damaged or of another space"),
    (7, "a budget does not allow it"),
    (BUG, "a bug in embedding_pipeline"),
    (INTERRUPTED, "interrupted with Ctrl-C"),
)
"""Every exit code and its meaning; shown by ``--help``."""


_NO_SPACE: Final = "free space, and run it again; what is finished is kept"
_NOT_ALLOWED: Final = "give write permission, or set data_dir to a folder of yours"
_REMEDIES: Final = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
}


@dataclass
class Session:
    """What holds for one call of the command line."""

    debug: bool = False


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run ``command``; whatever happens becomes an exit code."""
    session = Session(debug="--debug" in arguments)
    try:
        status = command.main(list(arguments), PROGRAM, obj=session, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _tell("Interrupted. What is finished is kept; run the command again to go on.", 130)
    except EmbeddingPipelineError as error:
        return _fail(error, session)
    except OSError as error:
        return _refused(error, session)
    except Exception as error:  # noqa: BLE001 - the outermost edge: a bug still ends in one message
        return _bug(error, session)
    return status if isinstance(status, int) else 0


def _fail(error: EmbeddingPipelineError, session: Session) -> int:
    if session.debug:
        traceback.print_exception(error)
    return _tell(f"Error: {error}{_where(error)}", error.exit_code)


def _where(error: EmbeddingPipelineError) -> str:
    """A word on the folder, where what is wrong may be that it is the wrong one."""
    from embedding_pipeline.settings.environment import settings_file

    if isinstance(error, SettingsError) or not isinstance(error, ConfigurationError):
        return ""
    if settings_file() is not None:
        return ""
    return f"\nThere is no pipeline.yaml in {Path.cwd()}: is this the folder you mean?"


def _refused(error: OSError, session: Session) -> int:
    """What the machine refused: no space, no permission. Anything else is a bug."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return _bug(error, session)
    if session.debug:
        traceback.print_exception(error)
    place = f" {error.filename}" if error.filename else ""
    return _tell(f"Error: {error.strerror}:{place} {remedy}", FAILED)


def _bug(error: Exception, session: Session) -> int:
    if session.debug:
        traceback.print_exception(error)
        return _tell("This is a bug in embedding_pipeline; please report it as shown above.", BUG)
    return _tell(
        f"Error: {type(error).__name__}: {error}\n"
        "This is a bug in embedding_pipeline. Run the command with --debug to see where it "
        "happened, and please report it.",
        BUG,
    )


def _tell(message: str, status: int) -> int:
    click.echo(message, err=True)
    return status
