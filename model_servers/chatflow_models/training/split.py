"""Which examples are held out to test a model. Pure; used by `rehearsal`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def hold_out_groups(intents: Sequence[str], groups: NDArray[np.intp], share: float, seed: int) -> NDArray[np.bool_]:
    """(n,) True for about the given share of each intent's examples.

    A group is never divided. Groups with the same set of intents are drawn from together: as many examples as the
    share asks for, but never all groups, and at least one where there are two. So an intent with two groups that no
    other intent has a part in is on both sides.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(groups.tolist()):
        members[group].append(place)
    strata: defaultdict[tuple[str, ...], list[list[int]]] = defaultdict(list)
    for places in members.values():
        strata[tuple(sorted({intents[place] for place in places}))].append(places)
    generator = np.random.default_rng(seed)
    is_held = np.zeros(len(intents), dtype=np.bool_)
    for stratum in sorted(strata):
        found = strata[stratum]
        shuffled = [found[i] for i in generator.permutation(len(found))]
        for places in _drawn(shuffled, share):
            is_held[places] = True
    return is_held


def _drawn(groups: Sequence[list[int]], share: float) -> list[list[int]]:
    """The first groups that together have no more examples than the share allows; else the smallest one alone."""
    if len(groups) < 2:
        return []
    room = round(share * sum(map(len, groups)))
    drawn: list[list[int]] = []
    for places in groups:
        if len(places) <= room and len(drawn) < len(groups) - 1:
            drawn.append(places)
            room -= len(places)
    return drawn or [min(groups, key=len)]
