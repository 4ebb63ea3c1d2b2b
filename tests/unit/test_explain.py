"""From facts to the answer: every word that `explain` knows, with its sentence, its exit code and the next command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from common.outcome import Exit
from common.sync.answer import Answer, Word
from common.sync.catalogue import File, RuleAtRse
from common.sync.explain import explain
from common.sync.explain_absent import at_stake
from common.sync.guard import Ruling
from common.sync.limits import Limit, Stop
from common.sync.marks import (
    GONE_CYCLE,
    GONE_WHY,
    GROUP,
    HOLD,
    KEEP,
    LEFT,
    Keep,
    hash_of,
    keep_text,
)
from common.sync.one_block import (
    Facts,
    History,
    Holder,
    InPhedex,
    InRucio,
    LastCopy,
    Letter,
    Listed,
    Part,
    Place,
    Policy,
    RuleSeen,
    Sweeping,
    Trouble,
    Waiting,
    files_of,
)
from common.sync.plan import Plan, Sizes

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
NODE, OTHER = "T2_IT_Pisa", "T2_CH_CERN"
BLOCK = "/A/B-v1/RAW#1"
FILES = {f"/store/{n}": File(f"/store/{n}", 10 + n, f"0000000{n}") for n in range(3)}
SYNC = f"phedex-rucio sync block '{BLOCK}' --node {NODE}"
WHOLE = Part(files=3, bytes=33, complete=True, group="g", changed=AT, subscribed=True)
HALF = Part(files=2, bytes=21, complete=False, group="g")
PHEDEX = InPhedex(as_of=AT, files=3, bytes=33, places={NODE: WHOLE})
GONE = InPhedex(as_of=AT, files=3, bytes=33, places={OTHER: WHOLE})
LISTED = Listed(files=FILES, nodes=dict.fromkeys(FILES, frozenset({NODE})))
RUCIO = InRucio(
    container=True,
    dataset=True,
    attached=True,
    inside=FILES,
    available={NODE: 3},
    states={name: {NODE: "AVAILABLE"} for name in FILES},
)


def rule(
    meta: Mapping[str, object] | None = None, locks: int = 3, ends: datetime | None = None, **ours: Any
) -> RuleSeen:
    kept = RuleAtRse("r1", locks, ending=ends is not None, group=ours.pop("group", "g"), **ours)
    meta = {GROUP: "g"} if meta is None else meta
    return RuleSeen(
        id="r1",
        account="sync_t2_it_pisa",
        expression=NODE,
        state="OK",
        locks=(locks, 0, 0),
        about=BLOCK,
        ends=ends,
        meta=meta,
        ours=kept,
    )


def marked(ago: timedelta, **meta: object) -> RuleSeen:
    note = {GROUP: "g", GONE_CYCLE: "c1", GONE_WHY: "gone", **meta}
    return rule(note, gone_since=int((AT - ago).timestamp()))


def facts(**others: Any) -> Facts:
    """A block that is as it should be, but for what is given."""
    found = {
        "place": Place(rse=NODE, account="sync_t2_it_pisa", account_exists=True),
        "policy": Policy(grace=3600),
        "phedex": PHEDEX,
        "listed": LISTED,
        "rucio": RUCIO,
    }
    made = Facts(block=BLOCK, node=NODE, at=AT, **(found | others))
    if made.rucio is not None and not made.rucio.rules and "rucio" not in others:
        return replace(made, rucio=replace(made.rucio, rules=(rule(),)))
    return made


def having(*rules: RuleSeen, **others: Any) -> Facts:
    return facts(rucio=replace(RUCIO, rules=rules), **others)


def said(answer: Answer) -> str:
    return " ".join(answer.says)


COMMAND = "phedex-rucio sync site X --approve abc"


def plan(*, held: Limit | None = None, unswept: bool = False, **others: Any) -> Plan:
    """The site's plan: the block passes the guard, or is held, or is marked and not swept."""
    stops = [Stop(held, f"would pass the {held}")] if held else []
    ruling = Ruling(
        allowed=[] if held else [BLOCK],
        held={BLOCK: held} if held else {},
        stops=stops,
        share=0.05,
        number=1,
        marked=0,
        bytes=33,
        checksum="abc",
        command=COMMAND if held and held is not Limit.LOCKED else "",
        everywhere="",
        approved=[],
        approval="",
        sweep=not unswept,
        kept=[BLOCK] if unswept else [],
        record=[],
    )
    empty: dict[str, Any] = {"missing": [], "update": {}, "pending": {}, "empty": [], "work": [], "ignored": []}
    numbers: dict[str, Any] = {"same": 19, "existing": 20, "present": 19, "left": 0, "after": "", "as_of": AT}
    made: dict[str, Any] = {"remove": {BLOCK: "moved"}, "doubts": [], "adds": Sizes(), "ruling": ruling}
    made |= {"kept": {}, "unmark": [], "removals": "", "sweep": [], "approve": [], "files": "", "files_held": False}
    return Plan(
        node=NODE,
        rse=NODE,
        account="sync_t2_it_pisa",
        dataset="*",
        unswept=[BLOCK] if unswept else [],
        **(empty | numbers | made | others),
    )


def answered(found: Facts, word: Word, code: int, text: str) -> Answer:
    """The answer to the facts, which has this word, this exit code and this in its sentences."""
    answer = explain(found)
    assert (answer.word, answer.code) == (word, code), answer
    assert text in said(answer), answer
    return answer


# --- PhEDEx has it complete


def test_as_it_should_be() -> None:
    assert answered(facts(), Word.NOTHING, Exit.DONE, "as it should be").next == ()
    assert {file.differs for file in files_of(facts())} == {""}


def test_what_is_to_be_added_says_what_lacks() -> None:
    empty = facts(rucio=InRucio())
    answer = answered(empty, Word.ADD, Exit.DIFFERENCES, "Would add: 3 files and the rule.")
    assert "since 2026-01-31 12:00 UTC; Rucio has no container." in said(answer)
    assert answer.next == (f"{SYNC} --wait",)
    answered(facts(rucio=InRucio(container=True)), Word.ADD, Exit.DIFFERENCES, "Rucio has no dataset.")
    answered(having(), Word.ADD, Exit.DIFFERENCES, "Would add: the rule. ")


@pytest.mark.parametrize(
    ("rucio", "text"),
    [
        (replace(RUCIO, inside=FILES | {"/store/x": File("/store/x", 1)}), "1 file that PhEDEx does not list"),
        (replace(RUCIO, states={name: {NODE: "BAD"} for name in FILES}), "3 replicas at T2_IT_Pisa are BAD"),
    ],
)
def test_a_rule_that_would_be_withheld(rucio: InRucio, text: str) -> None:
    answered(facts(rucio=rucio), Word.HELD, Exit.HELD, text)


def test_files_that_wait_for_another_site() -> None:
    new = replace(RUCIO, inside={}, states={}, holders=(Holder(OTHER, "sync_t2_ch_cern", "r2"),))
    text = f"new files wait until PhEDEx has the block at {OTHER}, such as /store/0."
    ruled = replace(new, rules=(rule(locks=2),))
    answered(facts(rucio=ruled, not_at=(OTHER,)), Word.HELD, Exit.HELD, text)
    answered(facts(rucio=ruled), Word.UPDATE, Exit.DIFFERENCES, "3 files to bring")
    answered(facts(rucio=new, not_at=(OTHER,)), Word.ADD, Exit.DIFFERENCES, f"Then {text}")


def test_what_stops_an_addition() -> None:
    wrong = replace(RUCIO, inside=FILES | {"/store/1": File("/store/1", 99, "00000001")})
    answer = answered(facts(rucio=wrong), Word.STOPPED, Exit.DIFFERENCES, "conflict: Rucio has 1 file")
    assert "in PhEDEx 11 bytes, adler32 00000001; in Rucio 99 bytes" in said(answer)
    nobody = Place(rse=NODE, account="sync_t2_it_pisa", account_exists=False)
    answer = answered(facts(rucio=InRucio(), place=nobody), Word.STOPPED, Exit.DIFFERENCES, "no account sync_t2_it")
    doubted = facts(rucio=InRucio(), listed=Listed(doubt="2 of 3 files are listed"))
    answered(doubted, Word.STOPPED, Exit.DIFFERENCES, "not believed: 2 of 3 files are listed")


@pytest.mark.parametrize(
    ("its_rule", "text"),
    [
        (marked(timedelta(minutes=5)), "its mark for removal is taken back"),
        (rule(keep=True), "a person's note to keep it goes"),
        (rule(held_since=7), "the note that it was held goes, for it is back"),
        (rule(ordering=True), "a transfer that Rucio queued for its rule is withdrawn"),
        (rule(ends=AT), "its rule, which ends 2026-01-31 12:00 UTC, stays"),
        (rule(locks=2), "its rule has 2 good locks of 3 files"),
        (rule(group="other"), "the rule's meta gets PhEDEx's group"),
        (rule(meta={}), "the rule's meta gets PhEDEx's group"),
    ],
)
def test_a_rule_that_needs_work(its_rule: RuleSeen, text: str) -> None:
    assert answered(having(its_rule), Word.UPDATE, Exit.DIFFERENCES, text).next == (f"{SYNC} --wait",)


def test_a_rule_that_ends_gets_nothing_new() -> None:
    lost = replace(RUCIO, states={}, rules=(rule(ends=AT),))
    answered(facts(rucio=lost), Word.HELD, Exit.HELD, "it waits until Rucio's cleaner has taken the rule away")


@pytest.mark.parametrize(
    ("rucio", "text"),
    [
        (replace(RUCIO, attached=False), "Rucio's dataset is not in its container"),
        (replace(RUCIO, states=dict(list(RUCIO.states.items())[:2])), "1 file of 3 differs"),
        (replace(RUCIO, available={NODE: 1}), "1 of 3 files are available at T2_IT_Pisa"),
    ],
)
def test_what_is_wrong_behind_a_rule_that_fits_needs_a_deep_look(rucio: InRucio, text: str) -> None:
    answer = answered(facts(rucio=replace(rucio, rules=(rule(),))), Word.NOTHING, Exit.DIFFERENCES, text)
    assert answer.next == (f"{SYNC} --deep --wait",)


def test_two_rules_are_too_many() -> None:
    answered(having(rule(), rule()), Word.NOTHING, Exit.DIFFERENCES, "has 2 rules of ours")


def test_an_empty_block() -> None:
    empty = replace(PHEDEX, files=0, places={NODE: replace(WHOLE, files=0)})
    answered(facts(phedex=empty, listed=Listed(), rucio=InRucio()), Word.NOTHING, Exit.DONE, "has no files")


def test_dry_says_what_would_be() -> None:
    dry = facts(rucio=InRucio(), policy=Policy(dry=True))
    answered(dry, Word.SKIPPED, Exit.DIFFERENCES, "nothing is written. Otherwise: would add: 3 files")


# --- PhEDEx has it not


@pytest.mark.parametrize(
    ("phedex", "text"),
    [
        (GONE, f"PhEDEx does not have it at {NODE}"),
        (InPhedex(as_of=AT, known=False), "PhEDEx does not know the block at all"),
        (replace(PHEDEX, places={NODE: HALF}), "with 2 of 3 files at T2_IT_Pisa (it is added when complete)"),
        (replace(PHEDEX, is_open=True, places={NODE: replace(WHOLE, complete=False)}), "when PhEDEx has closed it"),
    ],
)
def test_nothing_of_ours_is_there(phedex: InPhedex, text: str) -> None:
    answered(facts(phedex=phedex, listed=Listed(), rucio=InRucio()), Word.NOTHING, Exit.DONE, text)


def test_what_others_have_there_is_not_ours() -> None:
    alice = replace(RUCIO, holders=(Holder(NODE, "alice", "r9"),))
    answered(facts(phedex=GONE, rucio=alice), Word.NOTHING, Exit.DONE, "held by alice: not ours to touch")
    answered(facts(phedex=GONE, rucio=RUCIO), Word.NOTHING, Exit.DIFFERENCES, "3 replicas of it there are in nobody's")


@pytest.mark.parametrize(
    ("its_rule", "more", "text"),
    [
        (rule({KEEP: {"by": "me", "at": "noon"}}, keep=True), {}, "me (at noon) keeps it"),
        (replace(rule(keep=True), comment=keep_text(Keep("you", "one", "c"))), {}, "you (at one) keeps it"),
        (rule(ends=AT), {}, "its rule ends 2026-01-31 12:00 UTC"),
        (rule(), {"policy": Policy(keep_incomplete=True)}, "`incomplete: keep`"),
        (rule(), {"phedex": replace(PHEDEX, is_open=True, places={NODE: replace(WHOLE, complete=False)})}, "open at"),
    ],
)
def test_what_stays(its_rule: RuleSeen, more: dict[str, Any], text: str) -> None:
    found = having(its_rule, **({"phedex": replace(PHEDEX, places={NODE: HALF})} | more))
    answered(found, Word.NOTHING, Exit.DONE, text)
    assert not at_stake(found)


def test_the_guard_lets_it_pass_or_holds_it() -> None:
    gone = having(rule(), phedex=GONE)
    assert at_stake(gone)
    passing = replace(gone, plan=plan())
    answer = answered(passing, Word.MARK, Exit.DIFFERENCES, "1 of 20 rules would be marked then (5 %)")
    assert answer.next[0] == f"{SYNC} --wait"
    held = replace(gone, plan=plan(held=Limit.SHARE))
    answer = answered(held, Word.HELD, Exit.HELD, "The guard holds it (share): would pass the share.")
    assert "(moved: complete at another node, and in Rucio there)" in said(answer)
    failed = replace(gone, plan_failed="Truncated: it stops")
    answered(failed, Word.UNKNOWN, Exit.AWAY, "without that nothing is removed: Truncated: it stops.")
    unasked = replace(gone, plan_trouble="--quick leaves the guard out")
    answered(unasked, Word.MARK, Exit.DIFFERENCES, "is not known: --quick leaves the guard out")


LOOK = f"phedex-rucio plan {NODE}"


def test_an_approval_is_offered_for_what_is_on_record_and_after_the_list() -> None:
    new = having(rule(), phedex=GONE, plan=plan(held=Limit.NOWHERE, remove={BLOCK: "nowhere"}))
    answer = answered(new, Word.HELD, Exit.HELD, "not on record yet: the next sync puts it there")
    assert answer.next == (LOOK, f"{SYNC} --wait")
    held = rule({GROUP: "g", HOLD: {"since": int(AT.timestamp()), "why": "nowhere"}})
    answer = answered(
        replace(new, rucio=replace(RUCIO, rules=(held,))), Word.HELD, Exit.HELD, "On record as held since"
    )
    assert "since 2026-01-31 12:00 UTC (nowhere): an approval of what is held at the site covers it" in said(answer)
    assert answer.next == (LOOK, COMMAND)
    milder = rule({GROUP: "g", HOLD: {"since": int(AT.timestamp()), "why": "incomplete"}})
    answered(replace(new, rucio=replace(RUCIO, rules=(milder,))), Word.HELD, Exit.HELD, "not on record yet")
    everywhere = plan(held=Limit.NOWHERE, remove={BLOCK: "nowhere"})
    assert everywhere.ruling is not None
    everywhere = replace(everywhere, ruling=replace(everywhere.ruling, everywhere="phedex-rucio sync dataset /A"))
    found = replace(new, rucio=replace(RUCIO, rules=(held,)), plan=everywhere)
    assert explain(found).next == (LOOK, COMMAND, "phedex-rucio sync dataset /A")


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("partly", "it stays. Partly: complete at no node, and some node has files of it"),
        ("waiting (no node that has it can have it in Rucio)", f"It is complete at {OTHER}"),
    ],
)
def test_what_may_be_the_last_copy_stays_marked_or_not(reason: str, text: str) -> None:
    for one in (rule(), marked(timedelta(minutes=5)), marked(timedelta(hours=2))):
        found = having(one, phedex=GONE, plan=plan(remove={}, kept={BLOCK: reason}))
        answer = answered(found, Word.HELD, Exit.HELD, text)
        assert answer.next[0] == LOOK
        assert ("Marked at" in said(answer)) == (one.ours is not None and one.ours.marked)
    assert (answer.next[1:] == (f"phedex-rucio setup {OTHER}",)) == reason.startswith("waiting")


def test_a_mark_for_a_milder_reason_is_decided_anew() -> None:
    worse = having(marked(timedelta(hours=2)), phedex=GONE, plan=plan(held=Limit.UNKNOWN, remove={BLOCK: "unknown"}))
    answer = answered(worse, Word.HELD, Exit.HELD, "The guard holds it (unknown)")
    assert "Today's reason is worse than the mark's" in said(answer)
    passing = replace(worse, plan=plan(remove={BLOCK: "nowhere"}))
    answered(passing, Word.MARK, Exit.DIFFERENCES, "Today's reason is worse than the mark's")


def test_a_locked_rule_names_who_must_do_what() -> None:
    unlock = "rucio rule update r1 --locked False"
    fresh = having(rule(locked=True), phedex=GONE, plan=plan(held=Limit.LOCKED))
    answer = answered(fresh, Word.HELD, Exit.HELD, "a person locked its rule r1: it stays until that person unlocks it")
    assert answer.next == (unlock, LOOK)
    for ago in (timedelta(minutes=5), timedelta(hours=2)):
        its_rule = rule({GROUP: "g"}, gone_since=int((AT - ago).timestamp()), locked=True)
        kept = plan(held=Limit.LOCKED, unswept=True, remove={})
        answer = answered(having(its_rule, phedex=GONE, plan=kept), Word.HELD, Exit.HELD, "a person locked its rule r1")
        assert answer.next == (unlock, LOOK)
        at_tape = plan(held=Limit.MARKED, unswept=True, remove={})
        assert unlock not in explain(having(its_rule, phedex=GONE, plan=at_tape)).next


SWEEPING = Sweeping(key="phedex_sweeping.a", by="host:1", cycle="c", since=AT, until=AT + timedelta(hours=1), blocks=3)


def sweeping(*, at: datetime = AT, one: Sweeping = SWEEPING, **others: Any) -> Facts:
    place = Place(rse=NODE, account="sync_t2_it_pisa", account_exists=True, sweeping=(one,))
    return replace(facts(place=place, **others), at=at)


def test_a_sweep_that_is_announced_right_now() -> None:
    says = "A sweep is announced at T2_IT_Pisa since 2026-01-31 12:00 UTC by host:1, cycle c"
    answer = answered(sweeping(), Word.NOTHING, Exit.DIFFERENCES, "nothing is added before that has ended")
    assert says in said(answer)
    due = replace(RUCIO, rules=(marked(timedelta(hours=2)),))
    answer = answered(sweeping(phedex=GONE, rucio=due), Word.NOTHING, Exit.DONE, "its sweep is announced")
    assert says in said(answer)
    over = sweeping(at=AT + timedelta(hours=1))
    answered(over, Word.NOTHING, Exit.DONE, "its end was never told: over since 2026-01-31 13:00 UTC")
    unread = sweeping(one=Sweeping(key="phedex_sweeping.b"), at=AT + timedelta(days=9))
    answer = answered(unread, Word.NOTHING, Exit.DIFFERENCES, "phedex_sweeping.b, which nobody can read")
    assert answer.next == (f"rucio rse attribute unset {NODE} --attribute phedex_sweeping.b",)


def test_files_that_phedex_lists_no_more_leave_at_a_second_reading() -> None:
    gone = "/store/x"
    more = replace(RUCIO, inside=FILES | {gone: File(gone, 1)})
    first = replace(more, rules=(rule(locks=4),))
    answer = answered(facts(rucio=first), Word.UPDATE, Exit.DIFFERENCES, "4 good locks of 3 files")
    assert "to bring" not in said(answer)
    assert f"1 file in it that PhEDEx lists no more, such as {gone}: remembered by the next sync" in said(answer)
    noted = {GROUP: "g", LEFT: {str(int(AT.timestamp())): hash_of(gone)}}
    elsewhere = replace(rule(noted, locks=4), id="r2", ours=None, expression=OTHER)
    answer = answered(
        facts(rucio=replace(more, rules=(rule(locks=4), elsewhere))), Word.UPDATE, Exit.DIFFERENCES, "1 file remembered"
    )
    assert "to leave from 2026-01-31 13:00 UTC on if PhEDEx says so again" in said(answer)


def test_the_sites_plan_may_know_more_than_the_block() -> None:
    gone = having(rule(), phedex=GONE)
    doubted = replace(gone, plan=plan(remove={}, doubts=["/A/*/*: Truncated: it stops"]))
    answered(doubted, Word.HELD, Exit.HELD, "not believed for this part: /A/*/*: Truncated")
    moving = replace(gone, plan=plan(remove={}))
    answered(moving, Word.UNKNOWN, Exit.DIFFERENCES, "do not agree")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"policy": Policy(adds_only=True)}, "`adds_only: true`"),
        ({"policy": Policy(dry=True)}, "`dry: true`"),
        ({"place": Place(rse=NODE, switch="adds-only")}, "says adds-only"),
    ],
)
def test_where_nothing_is_removed_the_guard_is_not_asked(more: dict[str, Any], text: str) -> None:
    found = having(rule(), phedex=GONE, **more)
    assert not at_stake(found)
    answered(found, Word.SKIPPED, Exit.DIFFERENCES, text)


def test_a_mark_that_is_not_due_is_no_difference() -> None:
    early = having(marked(timedelta(minutes=5)), phedex=GONE, last_copy=LastCopy(file="/store/1", why="no other place"))
    answer = answered(early, Word.NOTHING, Exit.DONE, "may be swept from 2026-01-31 12:55 UTC on")
    assert "Marked at 2026-01-31 11:55 UTC by cycle c1 (gone)." in said(answer)
    assert "As things are it would then be held" in said(answer)
    assert answer.next == (f"phedex-rucio undo '{BLOCK}' --node {NODE}",)


def test_a_mark_that_is_due() -> None:
    due = having(marked(timedelta(hours=2)), phedex=GONE, plan=plan(remove={}), last_copy=LastCopy(delete=3))
    answered(due, Word.SWEEP, Exit.DONE, "its replicas go and its rule ends (3 replicas to delete)")
    answered(replace(due, plan=plan(held=Limit.EMPTY, unswept=True)), Word.HELD, Exit.HELD, "(empty): would pass")
    last = replace(due, last_copy=LastCopy(file="/store/1", why="no other place", takers=(OTHER,)))
    answered(last, Word.HELD, Exit.HELD, "last copy of /store/1 (no other place)")
    answered(
        replace(due, plan=None, plan_failed="Stale: old"), Word.UNKNOWN, Exit.AWAY, "nothing is removed: Stale: old"
    )
    fewer = replace(marked(timedelta(hours=2)), locks=(2, 0, 0))
    late = replace(due, rucio=replace(RUCIO, rules=(fewer,)))
    answered(late, Word.NOTHING, Exit.DONE, "waits for Rucio's judge-evaluator: its rule has 2 locks for 3 files")
    answered(replace(due, policy=Policy(adds_only=True)), Word.HELD, Exit.HELD, "but `adds_only: true`")
    partly = replace(due, phedex=replace(PHEDEX, places={NODE: HALF}), policy=Policy(keep_incomplete=True))
    answered(partly, Word.NOTHING, Exit.DONE, "`incomplete: keep`")


def test_a_mark_is_due_when_the_plan_says_so() -> None:
    early = having(
        marked(timedelta(hours=2)), phedex=GONE, plan=plan(remove={}, pending={BLOCK: AT + timedelta(hours=3)})
    )
    answered(early, Word.NOTHING, Exit.DONE, "may be swept from 2026-01-31 15:00 UTC on")
    cleared = rule({GROUP: "g"}, gone_since=1, cleared=int((AT - timedelta(minutes=10)).timestamp()))
    answered(having(cleared, phedex=GONE), Word.NOTHING, Exit.DONE, "may be swept from 2026-01-31 12:50 UTC on")


def test_a_mark_that_nobody_can_read_is_never_due() -> None:
    strange = having(rule({GROUP: "g"}, gone_since=253_402_300_799), phedex=GONE)
    answered(strange, Word.HELD, Exit.HELD, "nobody can read since when")


# --- what stands in the way


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        (Trouble(system="rucio", how="away", reason="Rucio: x", code=5, since=AT), "Rucio is away since 2026-01-31"),
        (
            Trouble(system="rucio", how="refused", reason="Rucio refuses our credentials: no", code=6),
            "Rucio refuses us: no",
        ),
        (Trouble(system="phedex", how="untrusted", reason="LoginPage: p", code=5), "not with data: LoginPage: p"),
    ],
)
def test_a_side_that_does_not_answer(trouble: Trouble, text: str) -> None:
    absent: dict[str, None] = {trouble.system: None}
    found = facts(troubles=(trouble,), **absent)
    assert "phedex-rucio check" in answered(found, Word.UNKNOWN, trouble.code, text).next


@pytest.mark.parametrize(
    ("more", "word", "text"),
    [
        ({"policy": Policy(run=False)}, Word.SKIPPED, "`run` is off"),
        ({"policy": Policy(unselected="`ignore: x`")}, Word.SKIPPED, "`ignore: x` in the settings leaves this block"),
        ({"place": Place(rse=NODE, switch="frozen", turned=("me", "noon", "fire"))}, Word.SKIPPED, "by me at noon"),
        ({"place": Place(rse=NODE, switch="frozen", handed_over="alice")}, Word.SKIPPED, "handed over to alice"),
        ({"place": Place(rse=NODE, switch="frozen", unreadable="maybe")}, Word.SKIPPED, "says 'maybe'"),
        ({"place": Place(why_none="no RSE")}, Word.SKIPPED, "Two commands make the RSE"),
        ({"place": Place(why_none="2 RSEs claim it", unclear=True)}, Word.STOPPED, "2 RSEs claim it"),
        ({"unknown_node": NODE}, Word.STOPPED, "PhEDEx has no node T2_IT_Pisa"),
    ],
)
def test_an_obstacle_goes_first_and_says_what_would_be_otherwise(more: dict[str, Any], word: Word, text: str) -> None:
    answer = answered(facts(rucio=InRucio(), **more), word, Exit.DIFFERENCES, text)
    if word is Word.SKIPPED and facts(**more).rse:
        assert "Otherwise: would add: 3 files" in said(answer)


def test_a_skipped_block_that_is_as_it_should_be_is_no_difference() -> None:
    answered(facts(policy=Policy(run=False)), Word.SKIPPED, Exit.DONE, "`run` is off")


def test_dead_letters_and_open_cycles_are_told() -> None:
    letters = tuple(
        Letter(id=f"i{n}", kind="sync.blocks", key="k", error="E: e", at=AT, about_block=n == 4) for n in range(5)
    )
    waiting = (Waiting(cycle="c", what="sync.site X", open=2, retry="try 2 at 12:00 UTC after RucioError"),)
    found = facts(rucio=InRucio(), letters=letters, history=History(waiting=waiting))
    answer = answered(found, Word.ADD, Exit.DIFFERENCES, "A command about this block died at 2026-01-31 12:00 UTC")
    assert answer.next[0] == "phedex-rucio dead show i4"
    assert "2 more dead letters about T2_IT_Pisa" in said(answer)
    assert "A cycle about it is open: c (sync.site X, 2 commands not finished; it waits: try 2" in said(answer)
    fine = answered(facts(letters=letters), Word.NOTHING, Exit.DONE, "as it should be")
    assert fine.next == ()
