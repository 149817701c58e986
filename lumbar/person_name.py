"""Whether two person names are the same name (PS3.5 6.2.1).

A name has up to three component groups, separated by ``=``: alphabetic, ideographic, phonetic. Each
has up to five components, separated by ``^``.
"""

from unicodedata import normalize


def same_name(a: str, b: str) -> bool:
    """Whether both texts of a PN value are one name, in so far as it can be compared.

    Not significant are: empty components and groups at the end, and their delimiters (PS3.5
    6.2.1.1); spaces around a component, which pad values (PS3.5 6.2); case (PS3.4 C.2.2.2.1 lets a
    matching of PN ignore it); how an accented letter is composed in Unicode.

    Groups are compared where both names have them, and all of these must be the same. A system that
    holds only the alphabetic group sends only that, so a missing group contradicts nothing. Names
    without any group in common are different, as nothing shows that they are the same; so are an
    empty name and one that is not. Two empty names are the same.
    """
    first, second = _groups(a), _groups(b)
    common = first.keys() & second.keys()
    if not common:
        return not first and not second
    return all(first[group] == second[group] for group in common)


def _groups(name: str) -> dict[int, tuple[str, ...]]:
    """The components of each group that is not empty, by the group's place."""
    groups = map(_components, name.split("="))
    return {place: components for place, components in enumerate(groups) if components}


def _components(group: str) -> tuple[str, ...]:
    components = [_folded(component) for component in group.split("^")]
    while components and not components[-1]:
        components.pop()
    return tuple(components)


def _folded(component: str) -> str:
    """Without padding and case; one sequence of characters for all that are canonically equal."""
    return normalize("NFC", normalize("NFD", component.strip(" \0")).casefold())
