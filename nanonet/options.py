"""One wording for "this is not one of the choices"."""

from collections.abc import Iterable

from nanonet.errors import OptionError

__all__ = ["unknown"]


def unknown(argument: str, value: object, choices: Iterable[object]) -> OptionError:
    """The error to raise when `value` of `argument` is none of `choices`; it names the nearest choice."""
    from difflib import get_close_matches

    names = [str(choice) for choice in choices]
    near = get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return OptionError(f"{argument} is {value!r}{hint}; wanted one of {', '.join(names)}")
