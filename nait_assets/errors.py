"""Errors that a user can do something about: the message says what is wrong, where, and what would work.

The command line prints such a message by itself; every other class is a fault of this project's and comes with where
it was raised. What a caller handles, such as a row that a corpus leaves out, is no `UserError`.
"""

from typing import ClassVar


class UserError(Exception):
    """Ends a command with its message and without a traceback.

    Attributes:
        bad_input: Whether a step that raises it makes `nait run` exit with 2, bad input, instead of 1, failed.
    """

    bad_input: ClassVar[bool] = True


class RecipeError(UserError):
    """The recipe cannot be read, contradicts itself, or asks for what its model and data do not have."""


class SourceError(UserError):
    """A file, folder or hub data set cannot be found, reached or read, or holds something else than it should."""


class DataError(UserError):
    """The data could be read, and do not suffice for what is to be made of them."""


class ModelError(UserError):
    """A model cannot be found, reached or loaded, or lacks what a method needs of it."""


class SetupError(UserError):
    """The machine or its environment lacks a device, a package, a service or a variable that was asked for."""


class EndpointError(UserError):
    """A chat endpoint does not answer, or not usefully."""


class BudgetError(UserError):
    """Going on would take more calls, tokens or money than the recipe allows."""


class NotFoundError(UserError):
    """A command was asked about a sample, target, subset or version that does not exist, or that several answer to."""


class WarehouseError(UserError):
    """A table or folder of the home cannot be read or written as it is, or has not been made."""

    bad_input = False


class DamagedError(WarehouseError):
    """A file of the home is not what it was written as, or cannot be read; every command ends with exit code 4."""


class NumericalError(UserError):
    """The model computed NaN or infinity; the message names samples, and layers where they are known."""

    bad_input = False


class WorkerError(UserError):
    """A worker process of a cluster was lost, again and again."""

    bad_input = False
