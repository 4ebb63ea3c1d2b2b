"""Does everything die?"""

import threading

from consumers.engine.health import DeadRun


def test_dead_letters_of_one_key_are_no_flood() -> None:
    run = DeadRun(limit=3)
    for _ in range(10):
        run.note("same", dead=True)
    assert not run.is_flood


def test_different_keys_without_a_success_are_one() -> None:
    run = DeadRun(limit=3)
    for key in ("a", "b"):
        run.note(key, dead=True)
    run.note("c", dead=False)
    for key in ("a", "b"):
        run.note(key, dead=True)
    assert not run.is_flood
    run.note("c", dead=True)
    assert run.is_flood


def test_in_a_flood_one_waits_for_its_turn_and_a_success_frees_all() -> None:
    run, free = DeadRun(limit=1, pause=3600), threading.Barrier(4)
    run.note("a", dead=True)
    threads = [threading.Thread(target=lambda: (run.enter(), free.wait(30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert free.n_waiting == 0
    run.note("b", dead=False)
    free.wait(30)
    for thread in threads:
        thread.join()


def test_the_first_to_come_after_the_pause_is_let_in() -> None:
    run = DeadRun(limit=1, pause=0.01)
    run.note("a", dead=True)
    run.enter()
    assert run.is_flood


def test_nobody_waits_for_a_worker_that_stops() -> None:
    run = DeadRun(limit=1, pause=3600)
    run.note("a", dead=True)
    run.stop()
    run.enter()
