"""Trials that are advanced together: how they come to be of one kind, and how their segments are grouped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from .executors import Done
from .resumable import Stackable
from .trial import FrozenTrial

if TYPE_CHECKING:
    from .optimization import Job

__all__ = ["grouped", "parted", "shared_structure"]

SHARE = 4
"""At most one trial for so many before it has the structure of the one before."""


def shared_structure(objective: Stackable, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """The structural settings that the next trial takes over from the last one; none if it is proposed freely.

    A structure is proposed once and shared by the trials that follow, up to as many as can be advanced together, but
    by no more than a quarter of those that there were before it. So the first eight trials are all free, a search of
    256 trials looks at twenty-five structures or more whatever the size of its stacks, and the other settings of each
    trial are the sampler's own, which learns from all of them.

    It depends on the study's trials alone, so an interrupted search goes on with the structure that it was at.
    Enqueued trials keep out of it.
    """
    own = [t for t in trials if t.params and not t.enqueued and t.parent is None]
    if not own:
        return {}
    structure = objective.structure(own[-1].params)
    sharing = 1
    while sharing < len(own) and objective.structure(own[-1 - sharing].params) == structure:
        sharing += 1
    _, most = objective.kind(own[-1].params)
    return structure if sharing < min(most, (len(own) - sharing) // SHARE) else {}


def grouped(objective: Stackable, jobs: Iterable[Job]) -> list[list[Job]]:
    """The jobs, in groups that are advanced together."""
    groups: list[list[Job]] = []
    open_ones: dict[Any, list[Job]] = {}
    for job in jobs:
        kind, most = objective.kind(job.trial.params)
        group = open_ones.get(kind)
        if group is None or len(group) >= most:
            group = open_ones[kind] = []
            groups.append(group)
        group.append(job)
    return groups


def parted(jobs: Sequence[Job], future: Future[Any]) -> list[Future[Any]]:
    """What became of each job of a group: `future`'s exception, or its own part of the results and of the time."""
    if len(jobs) == 1 or future.cancelled() or future.exception() is not None:
        return [future] * len(jobs)
    done = future.result()
    parts: list[Future[Any]] = []
    for result in done.result:
        part: Future[Any] = Future()
        if isinstance(result, Exception):
            part.set_exception(result)
        else:
            part.set_result(Done(result, done.seconds / len(jobs)))
        parts.append(part)
    return parts
