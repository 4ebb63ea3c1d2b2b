"""Does the system hold as containers? The tests go in this order, on one stack."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable

import pika
import pytest
from pika import exceptions

from common.broker.topology import BEATS, COMMANDS, EVENTS, SCHEDULER
from tests.containers import stack

MINUTES = float(os.environ.get("CONTAINERS_MINUTES") or 0)
SEED = int(os.environ.get("CONTAINERS_SEED") or time.time())


def test_from_nothing_to_in_sync() -> None:
    stack.compose("up", "--detach", "--wait", timeout=400)
    assert stack.is_healthy()
    assert stack.differences() == []
    status = ("run", "--rm", "-T", "cli", "status")  # 3 until the scheduler, started last, has looked
    stack.until(lambda: "Nothing is wrong" in stack.compose(*status, check=False), "status says nothing is wrong")


def test_every_container_is_confined() -> None:
    for one in json.loads(stack.run("docker", "inspect", *(c.id for c in stack.containers()))):
        host = one["HostConfig"]
        assert host["ReadonlyRootfs"], one["Name"]
        assert host["CapDrop"] == ["ALL"], one["Name"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"], one["Name"]
        assert host["Memory"] > 0, one["Name"]
        assert host["NanoCpus"] > 0, one["Name"]
        published = [where["HostIp"] for ports in host["PortBindings"].values() for where in ports]
        assert set(published) <= {"127.0.0.1"}, one["Name"]


def test_the_image_has_no_compiler_and_no_root() -> None:
    look = "id -u; command -v gcc cc pip || true; touch /x 2>&1 || true"
    said = stack.compose("run", "--rm", "-T", "--entrypoint", "sh", "cli", "-c", look).split("\n", 1)
    assert said[0] == "10001"
    assert "Read-only file system" in said[1]
    assert "/gcc" not in said[1]


Try = Callable[[pika.adapters.blocking_connection.BlockingChannel], object]
REFUSED: dict[str, dict[str, Try]] = {
    "scheduler": {
        "takes commands": lambda channel: channel.basic_get("sync.site"),
        "declares": lambda channel: channel.queue_declare("mine"),
        "writes to a queue": lambda channel: channel.basic_publish("", "sync.site.dead", b"{}"),
    },
    "worker": {
        "declares": lambda channel: channel.queue_declare("mine"),
        "takes the lease": lambda channel: channel.queue_declare(SCHEDULER, exclusive=True),
        "purges": lambda channel: channel.queue_purge("sync.site.dead"),
        "deletes": lambda channel: channel.queue_delete("sync.blocks"),
        "binds": lambda channel: channel.queue_bind("sync.blocks", EVENTS),
    },
    "operator": {
        "takes commands": lambda channel: channel.basic_get("sync.site"),
        "declares": lambda channel: channel.exchange_declare("mine"),
        "deletes": lambda channel: channel.queue_delete("sync.site.dead"),
        "speaks for a worker": lambda channel: channel.basic_publish(BEATS, "", b"{}"),
    },
}
ALLOWED: dict[str, dict[str, Try]] = {
    "scheduler": {"sends": lambda channel: channel.basic_publish(COMMANDS, "nobody", b"{}")},
    "worker": {"sends": lambda channel: channel.basic_publish(COMMANDS, "nobody", b"{}")},
    "operator": {"looks at dead letters": lambda channel: channel.basic_get("sync.site.dead")},
}


def _code(user: str, what: Try) -> int:
    """0, or the broker's reply code."""
    connection = pika.BlockingConnection(pika.URLParameters(stack.amqp_url(user)))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        what(channel)
    except exceptions.ChannelClosedByBroker as error:
        return error.reply_code
    finally:
        connection.close()
    return 0


@pytest.mark.parametrize("user", REFUSED)
def test_a_user_may_do_its_work_and_nothing_else(user: str) -> None:
    assert {name: _code(user, what) for name, what in REFUSED[user].items()} == dict.fromkeys(REFUSED[user], 403)
    assert {name: _code(user, what) for name, what in ALLOWED[user].items()} == dict.fromkeys(ALLOWED[user], 0)


def _scale(number: int) -> None:
    stack.compose("up", "--detach", "--no-recreate", "--no-deps", "--scale", f"worker-blocks={number}", "worker-blocks")


def _kill_the_broker() -> None:
    (broker,) = stack.containers("rabbitmq")
    stack.run("docker", "kill", broker.id)
    stack.run("docker", "start", broker.id)


def _cut_a_worker() -> None:
    one = random.choice(stack.containers("worker-blocks"))
    for network in one.networks:
        stack.run("docker", "network", "disconnect", network, one.id)
    for network in one.networks:
        stack.run("docker", "network", "connect", network, one.id)


def _exhaust_a_worker() -> None:
    """Its memory is used up: the kernel kills the largest of its processes, the worker; it starts again.

    What fills it is its own /tmp, which counts and can't be paged out: a process would be the largest itself.
    """
    one = stack.containers("worker-blocks")[0]
    stack.run("docker", "update", "--memory", "96m", "--memory-swap", "96m", one.id)
    stack.run("docker", "exec", one.id, "dd", "if=/dev/zero", "of=/tmp/full", "bs=1M", "count=64", check=False)

    def is_another() -> bool:
        now = stack.state_of(one)
        return bool(now["Running"] and now["Pid"] != one.state["Pid"])

    try:
        stack.until(is_another, "killed at its memory limit, and started again", 60)
    finally:
        stack.run("docker", "update", "--memory", "512m", "--memory-swap", "1g", one.id)


def test_nothing_is_lost_whatever_breaks() -> None:
    unclean: list[str] = []
    faults: list[Callable[[], object]] = [
        lambda: _scale(5),
        _kill_the_broker,
        _cut_a_worker,
        lambda: _scale(1),
        _exhaust_a_worker,
        *(lambda s=service: unclean.extend(stack.stopped_and_started(s)) for service in stack.OURS),  # type: ignore[misc]
        lambda: _scale(2),
    ]
    done, deadline, turn = 0, time.monotonic() + 60 * MINUTES, random.Random(SEED)
    for fault in faults:
        _load(done)
        fault()
        done += 1
    while time.monotonic() < deadline:
        _load(done)
        turn.choice([*faults[1:3], *faults[4:], lambda: _scale(turn.randint(1, 8))])()
        done += 1
    stack.until(stack.is_healthy, "everything healthy", 180)
    stack.cli("sync", "site", *stack.SITES, "--wait", timeout=400)
    stack.until(lambda: not stack.lost(), "every command closed", 180)
    found = stack.differences()
    print(f"seed {SEED}: {done} faults, {len(found)} differences, {len(unclean)} unclean exits")
    assert found == []
    assert unclean == []


def _load(number: int) -> None:
    """New blocks and a look at two sites, asked for by the broker's own operator as far as it is there.

    Not while many batches wait: the workers shall be busy, not end an hour after the last fault.
    """
    stack.until(lambda: stack.containers("datasvc")[0].health == "healthy", "datasvc")
    stack.until(lambda: stack.containers("rabbitmq")[0].health == "healthy", "broker")
    if stack.ready("sync.blocks", "sync.blocks.now") > 40:
        return
    stack.add_blocks("T2_CH_CERN", f"/Broken{SEED}n{number}/Run-v1/RAW", 60)
    stack.cli("sync", "site", "T2_CH_CERN", "T1_IT_CNAF_Buffer")
