"""Which column is what: the user, the item, perhaps a rating and a time, by the names that logs usually give them.

A name given by the user is taken as it stands; without one, a column counts as the user when its name, in lower
case and without punctuation, is one of the usual. Two such columns are one too many, and the message asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rectoolkit.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

USUAL = {
    "user": "user userid uid useridx customer customerid visitor visitorid member memberid account accountid client "
    "clientid reviewer reviewerid sessionid session listener listenerid reader readerid u",
    "item": "item itemid iid itemidx product productid sku movie movieid film filmid asin parentasin article articleid "
    "book bookid isbn track trackid song songid artist artistid business businessid venue venueid poi poiid location "
    "locationid news newsid video videoid game gameid recipe recipeid ad adid i",
    "rating": "rating ratings score stars overall value preference weight",
    "time": "time timestamp unixtime unixreviewtime datetime date eventtime ratingtimestamp createdat ts",
}


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read; ``rating`` and ``time`` are empty where they are not needed."""

    user: str = ""
    item: str = ""
    rating: str = ""
    time: str = ""

    def named(self) -> dict[str, str]:
        """Role -> name of the columns there are."""
        return {role: name for role in USUAL if (name := getattr(self, role))}


def choose(source: str, there: Sequence[str], given: Columns, needed: Sequence[str], wished: Sequence[str]) -> Columns:
    """The columns to read of a source that has the columns ``there``.

    ``given`` names are taken; of the rest, roles in ``needed`` must be guessed and roles in ``wished`` may be.
    Raises DataError naming the source where a given column is not there, or a needed one is missing or ambiguous.
    """
    chosen: dict[str, str] = {}
    for role in USUAL:
        name = getattr(given, role)
        if name:
            if name not in there:
                raise DataError(f"{source}: there is no column '{name}' for the {role}; {nearest(name, there)}")
            chosen[role] = name
        elif role in needed or role in wished:
            found = usual(role, there)
            if len(found) == 1:
                chosen[role] = found[0]
            elif role in needed:
                raise DataError(_which(source, role, there, found))
    names = list(chosen.values())
    twice = [name for name in names if names.count(name) > 1 or there.count(name) > 1]
    if twice:
        raise DataError(f"{source}: column '{twice[0]}' stands for two things, or the header names it twice")
    return Columns(**chosen)


def usual(role: str, there: Sequence[str]) -> list[str]:
    """The columns whose names are usual for the role: lower case and punctuation aside."""
    return [column for column in there if re.sub(r"[^a-z0-9]", "", column.lower()) in USUAL[role].split()]


def _which(source: str, role: str, there: Sequence[str], found: Sequence[str]) -> str:
    article = "an" if role == "item" else "a"
    if found:
        several = ", ".join(f"'{column}'" for column in found)
        return f"{source}: several columns could be the {role}: {several}; name one with --{role}-column"
    columns = ", ".join(f"'{column}'" for column in there)
    return f"{source}: no column has {article} {role}'s usual name; name it with --{role}-column; there are {columns}"
