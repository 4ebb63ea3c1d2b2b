"""Which settings are there, with which defaults and units? Plain data; `load.py` fills it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta as Constraint
from msgspec import Struct, field

from common import names

Seconds = Annotated[float, Constraint(ge=0)]
Count = Annotated[int, Constraint(ge=1)]
Text = Annotated[str, Constraint(max_length=4096)]
Run = bool | Annotated[str, Constraint(max_length=64)]  # the forms are told by run.py
Name = Annotated[str, Constraint(pattern=r"^[A-Za-z0-9._-]{0,60}\Z")]


class Main(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The process: whom it talks to, how long it waits, how often it tries. Times in seconds."""

    # broker
    amqp_url: Text = "amqp://guest:guest@127.0.0.1:5672/%2F"
    heartbeat: Count = 10
    blocked_timeout: Seconds = 60
    connect_timeout: Seconds = 10
    confirm_timeout: Seconds = 60
    confirm_window: Count = 256
    # PhEDEx
    phedex_url: Text = "https://cmsweb.cern.ch/phedex/datasvc"
    phedex_instance: Text = "prod"
    phedex_timeout: Seconds = 300
    phedex_tries: Count = 3
    phedex_ca: Text = ""
    phedex_cert: Text = ""
    phedex_key: Text = ""
    phedex_cache_age: Seconds = 300
    phedex_clock_skew: Seconds = 300
    phedex_reply_bytes: Count = 64 * 1024 * 1024
    phedex_blocks: Count = 100
    # Rucio
    rucio_timeout: Seconds = 600
    rucio_account: Text = ""
    rucio_files: Count = 500
    rucio_dids: Count = 500
    rucio_rules: Count = 40
    # removals
    approval_lifetime: Seconds = 86_400
    nowhere_apart: Seconds = 3_600
    sweep_within: Annotated[float, Constraint(gt=0)] = 5
    sweep_blocks: Annotated[int, Constraint(ge=1, le=12)] = 10
    sweep_files: Annotated[int, Constraint(ge=1, le=1_000)] = 300
    announcement_lifetime: Annotated[float, Constraint(ge=1)] = 3_600
    rely_on: list[Name] = field(default_factory=list)
    # worker
    threads: Count = 4
    attempts: Count = 6
    deadline: Seconds = 600
    grace: Seconds = 30
    hangs_after: Seconds = 1800
    spool: Text = ""
    beat: Annotated[float, Constraint(gt=0)] = 15
    probe_pause: Seconds = 5
    probe_pause_max: Seconds = 60
    wait_delays: list[Seconds] = field(default_factory=lambda: [30.0, 300.0, 1800.0, 10800.0])
    # scheduler
    pool: Count = 10
    sleep: Annotated[float, Constraint(gt=0)] = 10
    run: Run = True
    jitter: Seconds = 60
    stalled_after: Annotated[float, Constraint(gt=0)] = 21_600
    # all
    verbosity: Text = ""
    log_format: Literal["text", "json"] = "text"
    metrics_host: Text = "127.0.0.1"
    metrics_port: Annotated[int, Constraint(ge=0, le=65535)] = 0
    allow_insecure: bool = False


class Site(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The policy of a site; `default` gives it for all, a section of the site's name changes it for one.

    A site with a section of its own is one that the scheduler looks at, `every` so many seconds.

    `chunck`: at most so many blocks in a page of a plan (the spelling is that of the original service's files).
    """

    chunck: Count = 10_000
    select: Text = ""
    ignore: Text = ""
    dry: bool = False
    run: Run = True
    every: Seconds = 600
    deep: Seconds = 604_800
    adds_only: bool = False
    multi_das_calls: bool = False
    rse: Text = ""
    account: Annotated[str, Constraint(max_length=names.ACCOUNT_LENGTH)] = ""
    inventory_node: Text = ""
    max_removal_share: Annotated[float, Constraint(ge=0, le=1)] = 0.1
    max_removal_blocks: Annotated[int, Constraint(ge=0)] = 1_000
    max_removal_bytes: Annotated[int, Constraint(ge=0)] = 1_000_000_000_000_000
    hold_custodial: bool = True
    hold_nowhere: bool = True
    hold_unknown: bool = True
    allow_clean: bool = False
    incomplete: Literal["remove", "keep"] = "remove"
    removal_grace: Seconds = 3_600
    batch_blocks: Annotated[int, Constraint(ge=1, le=100)] = 100
    batch_files: Count = 5_000


class Dataset(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """An entry of `datasets:`: a dataset or pattern that is synced now and then, at some nodes or wherever it is."""

    dataset: Text
    nodes: list[Text] = []
    every: Seconds = 86_400
    deep: Seconds = 0
    select: Text = ""
    ignore: Text = ""
    dry: bool = False
    adds_only: bool = False
    name: Name = ""


class Scheduled(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """An entry of `schedule:`: any command, every so many seconds."""

    kind: Text
    every: Annotated[float, Constraint(ge=1)]
    fields: dict[str, Any] = {}
    name: Name = ""


class Settings(Struct, frozen=True, kw_only=True):
    """All of it: `main`, the policy of every site that has a section, and what else is done by the clock."""

    main: Main = Main()
    default: Site = Site()
    sites: dict[str, Site] = {}
    datasets: list[Dataset] = []
    schedule: list[Scheduled] = []

    def site(self, node: str) -> Site:
        """The policy in force for a node."""
        return self.sites.get(node, self.default)
