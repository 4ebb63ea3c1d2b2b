"""What if no answer comes to a delete? It may be carried out yet: nothing relies on its replicas; `undo` says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from common.errors import RucioError
from tests.integration.test_last_look import ANCHOR, FREE, announced, at_both, lfns, rule_here, sweeping, undone
from tests.stack.rucio_server import RucioServer
from tests.two_sides import NODE, OTHER, TwoSides, block, two_sides

RESET = "('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))"
Send = Callable[..., requests.Response]


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path, nowhere_apart=0) as sides:
        sides.put(ANCHOR)
        sides.put(block(70), node=OTHER)
        yield sides


@contextmanager
def first_delete(
    monkeypatch: pytest.MonkeyPatch, fate: Callable[[Send], requests.Response], of: str = "/replicas"
) -> Iterator[list[str]]:
    """The first delete of replicas has this fate, below all that the client does; each that is sent is listed.

    `of`: a part of another address.
    """
    send, sent = HTTPAdapter.send, list[str]()

    def once(self: HTTPAdapter, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        if request.method != "DELETE" or of not in str(request.url):
            return send(self, request, *args, **options)
        sent.append(str(request.url))
        if len(sent) > 1:
            return send(self, request, *args, **options)
        return fate(lambda: send(self, request, *args, **options))

    with monkeypatch.context() as patched:
        patched.setattr(HTTPAdapter, "send", once)
        yield sent


def carried_out(carry_out: Send) -> requests.Response:
    carry_out()
    raise requests.exceptions.ConnectionError(RESET)


def gateway(status: int) -> Callable[[Send], requests.Response]:
    def answered(carry_out: Send) -> requests.Response:
        response = carry_out()
        response.status_code = status
        return response

    return answered


@pytest.mark.parametrize("fate", [carried_out, gateway(502), gateway(503), gateway(504)])
def test_a_delete_that_was_carried_out_without_an_answer_is_never_called_kept(
    sides: TwoSides, monkeypatch: pytest.MonkeyPatch, fate: Callable[[Send], requests.Response]
) -> None:
    (name,) = at_both(sides, 1)
    sides.snapshot.remove_replica(name, NODE)
    with first_delete(monkeypatch, fate) as sent:
        result = sweeping(sides, name)
    assert len(sent) == 1  # never a second time by itself: its answer would hide what became of the first
    assert (result.outcome, result.counts.get("swept", 0)) == ("changed", 0)
    assert any("no answer came to the delete" in note for note in result.notes)
    assert len(announced(sides)) == 1
    assert (undone(sides, name), set(sides.replicas())) == ("swept", set())
    assert sweeping(sides, name).counts["swept"] == 1  # the next cycle goes on: Rucio shows how it ended
    assert rule_here(sides, name)["expires_at"] is not None


def test_nothing_relies_on_replicas_whose_delete_may_be_carried_out_yet(
    sides: TwoSides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is cut, the block moves back, and only then Rucio gets to the delete."""
    (name,) = at_both(sides, 1)
    sides.snapshot.remove_replica(name, NODE)
    late: list[Send] = []

    def cut(carry_out: Send) -> requests.Response:
        late.append(carry_out)
        raise requests.exceptions.ConnectionError(RESET)

    with first_delete(monkeypatch, cut):
        sweeping(sides, name)
        assert undone(sides, name) == "unsure"
        sides.snapshot.add_replica(name, NODE)
        sides.snapshot.remove_replica(name, OTHER)
        assert sides.sync(name).counts.get("updated", 0) == 0  # what is announced is left as it is
        assert sweeping(sides, name, node=OTHER).counts.get("swept", 0) == 0
        assert late[0]().status_code == 200
    assert set(sides.replicas()) == set()
    assert set(sides.replicas(OTHER)) >= lfns(name)


def slow(_carry_out: Send) -> requests.Response:
    raise requests.exceptions.ReadTimeout("Read timed out. (read timeout=60)")


@pytest.mark.parametrize("fate", [slow, carried_out, gateway(500), gateway(503)])
def test_what_leaves_its_block_without_an_answer_is_never_called_kept(
    sides: TwoSides, monkeypatch: pytest.MonkeyPatch, fate: Callable[[Send], requests.Response]
) -> None:
    """What is nowhere else leaves its block first, and that may be carried out yet."""
    (name,) = at_both(sides, 1)
    for node in (NODE, OTHER):
        sides.snapshot.remove_replica(name, node)
    sweeping(sides, name, node=OTHER, site=FREE)
    late: list[Send] = []

    def noted(carry_out: Send) -> requests.Response:
        late.append(carry_out)
        return fate(carry_out)

    with first_delete(monkeypatch, noted, of="/dids"):
        with suppress(RucioError):
            sweeping(sides, name, site=FREE)
        assert len(late) == 1
        assert len(announced(sides)) == 1
        assert undone(sides, name) != "kept"
        sides.snapshot.add_replica(name, NODE)
        assert sides.sync(name).counts.get("updated", 0) == 0
