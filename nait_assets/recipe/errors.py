"""The error of a recipe that cannot be used."""


class RecipeError(ValueError):
    """The recipe, or something that it names, cannot be used; the message says what, where, and what would work."""
