"""Checks the coherence table of spec.toml and lays it out for the templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Transition:
    """A cell of the table: (state, event) -> next state and actions; an illegal one leads nowhere."""

    state: str
    event: str
    legal: bool
    next: str
    actions: tuple[str, ...]


def transitions_of(coherence: dict[str, Any]) -> list[list[Transition]]:
    """The table, (states, events), in the order of both; ValueError where it is not whole."""
    names = {
        what: [name for name, _ in coherence[what]] for what in ("states", "events", "actions")
    }
    found: dict[tuple[str, str], Transition] = {}
    for state, events, following, actions in coherence["transitions"]:
        for event in events.split():
            cell = Transition(state, event, True, following, tuple(actions.split()))
            _add(found, cell, names)
    for state, events in coherence["illegal"]:
        for event in events.split():
            _add(found, Transition(state, event, False, state, ()), names)
    table = []
    for state in names["states"]:
        missing = [event for event in names["events"] if (state, event) not in found]
        if missing:
            raise ValueError(f"coherence: {state} has neither transition nor illegal for {missing}")
        table.append([found[state, event] for event in names["events"]])
    return table


def _add(
    found: dict[tuple[str, str], Transition], cell: Transition, names: dict[str, list[str]]
) -> None:
    where = f"coherence: {cell.state} on {cell.event}"
    if (cell.state, cell.event) in found:
        raise ValueError(f"{where} stands twice")
    used = [("states", cell.state), ("events", cell.event), ("states", cell.next)]
    for what, name in [*used, *(("actions", action) for action in cell.actions)]:
        if name not in names[what]:
            raise ValueError(f"{where}: {name!r} is not among the {what}")
    if "busy" in cell.actions and (cell.next != cell.state or len(cell.actions) > 1):
        raise ValueError(f"{where}: busy changes nothing, yet leads to {cell.next}")
    asks = cell.legal and cell.event.startswith(("get_", "upgrade"))
    answers = [action for action in cell.actions if action in ("grant", "recall", "busy")]
    if len(answers) != asks:
        raise ValueError(f"{where}: a request has one answer, and nothing else has: {answers}")
    found[cell.state, cell.event] = cell
