"""Settings of the right type that are wrong all the same, and those at the border that are right."""

from __future__ import annotations

from typing import Any

import pytest

from common.settings.checks import mistakes_of
from common.settings.model import Main, Settings, Site
from common.settings.original import KNOWN_LEVELS


def of_main(**changes: Any) -> list[str]:
    return mistakes_of(Settings(main=Main(**changes)))


def of_site(**changes: Any) -> list[str]:
    return mistakes_of(Settings(sites={"T2_IT_Pisa": Site(**changes)}))


def test_the_defaults_are_right() -> None:
    assert mistakes_of(Settings()) == []


@pytest.mark.parametrize(
    "site",
    [
        {"every": 0},  # the scheduler leaves it alone
        {"every": 1},
        {"every": 1.5},
        {"inventory_node": "T1_US_FNAL_MSS"},
        {"inventory_node": ""},
        {"select": "^/A/", "ignore": "RAW$"},
        {"run": "until:2030-01-01:00:00:00"},
    ],
)
def test_what_a_site_may_have(site: dict[str, Any]) -> None:
    assert of_site(**site) == []


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ({"every": 0.01}, "every: 0.01 s; at least 1, or 0 for a site that the scheduler leaves alone"),
        ({"every": 0.99}, "every: 0.99 s; at least 1, or 0 for a site that the scheduler leaves alone"),
        ({"inventory_node": "Pisa"}, "inventory_node: 'Pisa' is no node name such as T1_US_FNAL_MSS"),
    ],
)
def test_what_a_site_may_not_have(site: dict[str, Any], says: str) -> None:
    assert of_site(**site) == [f"T2_IT_Pisa.{says}"]


@pytest.mark.parametrize(
    "main",
    [
        {"probe_pause": 60, "probe_pause_max": 60},
        {"amqp_url": "amqps://u@a.example.org/v, amqps://u@b.example.org/v"},  # a space behind the comma
        {"amqp_url": "amqps://u@a.example.org:5671/v"},
        {"phedex_url": "http://127.0.0.1:8080/phedex"},
        {"phedex_url": "http://phedex.example.org/phedex", "allow_insecure": True},
        {"wait_delays": [1]},
        {"verbosity": "DEBUG"},
    ],
)
def test_what_the_process_may_have(main: dict[str, Any]) -> None:
    assert of_main(**main) == []


@pytest.mark.parametrize(
    ("main", "says"),
    [
        ({"wait_delays": []}, "wait_delays: empty; a failed command needs at least one pause before the next try"),
        ({"verbosity": "LOUD"}, f"verbosity: 'LOUD' is no level; known are {', '.join(KNOWN_LEVELS)}"),
        ({"probe_pause": 61}, "probe_pause: 61 s is more than main.probe_pause_max, 60 s"),
        (
            {"amqp_url": "amqp://u@mq.example.org/v"},
            "amqp_url: amqp://mq.example.org is not encrypted and not on this machine: use amqps://, or set "
            "main.allow_insecure: true",
        ),
        (
            {"phedex_url": "http://phedex.example.org/d"},
            "phedex_url: http://phedex.example.org is not encrypted and not on this machine: use https://, or set "
            "main.allow_insecure: true",
        ),
        (
            {"phedex_url": "ftp://phedex.example.org/d"},
            "phedex_url: no URL that begins with http:// or https:// and names a host",
        ),
    ],
)
def test_what_the_process_may_not_have(main: dict[str, Any], says: str) -> None:
    assert of_main(**main) == [f"main.{says}"]


@pytest.mark.parametrize(
    "sites",
    [
        {"T2_IT_Pisa": Site(rse="T2_IT_Pisa_Old"), "T2_US_MIT": Site()},
        {"T2_IT_Pisa": Site(rse="T2_IT_Pisa"), "T2_US_MIT": Site(rse="T2_US_MIT")},
        {
            "T2_IT_Pisa": Site(rse="T2_US_MIT"),
            "T2_US_MIT": Site(rse="T2_IT_Pisa"),
        },  # each the other's: odd, no conflict
    ],
)
def test_each_site_has_an_rse_of_its_own(sites: dict[str, Site]) -> None:
    assert mistakes_of(Settings(sites=sites)) == []


@pytest.mark.parametrize(
    ("sites", "says"),
    [
        (
            {"T2_IT_Pisa": Site(rse="T2_X"), "T2_US_MIT": Site(rse="T2_X")},
            "T2_US_MIT.rse: T2_X is the RSE of T2_IT_Pisa too",
        ),
        (
            {"T2_IT_Pisa": Site(rse="T2_US_MIT"), "T2_US_MIT": Site()},
            "T2_IT_Pisa.rse: T2_US_MIT is the RSE of T2_US_MIT",
        ),
        (
            {"T2_US_MIT": Site(), "T2_IT_Pisa": Site(rse="T2_US_MIT")},
            "T2_IT_Pisa.rse: T2_US_MIT is the RSE of T2_US_MIT",
        ),
    ],
)
def test_two_sections_with_one_rse_are_refused_with_both_names(sites: dict[str, Site], says: str) -> None:
    (said,) = mistakes_of(Settings(sites=sites))
    assert said.startswith(says)
    assert said.endswith(": each would sweep the other's blocks; correct one")


def test_what_a_site_has_from_default_is_said_once_whatever_it_says() -> None:
    """Even where the text has the site's name a second time."""
    wrong = Site(select="(T2_IT_Pisa.")
    (said,) = mistakes_of(Settings(default=wrong, sites={"T2_IT_Pisa": wrong, "T2_US_MIT": wrong}))
    assert said.startswith("default.select: '(T2_IT_Pisa.' is no regular expression")
