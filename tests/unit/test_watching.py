"""Which packet loop is taken for stuck, look by look."""

from rtpfanout.supervisor.watching import LONGEST_SECONDS, LOOK_SECONDS, StuckWorkers

SECOND = 1_000_000_000


def seen(*workers, seconds=10.0, can_run=lambda _worker: False):
    """The answers of looks over so long at workers, each a function of the time in seconds that
    gives its last sign of life and the CPU time of its thread."""
    judge = StuckWorkers(can_run)
    answers = []
    for number in range(int(seconds / LOOK_SECONDS)):
        at = number * LOOK_SECONDS
        health = [
            (int((100 + sign) * SECOND), 0, int((7 + cpu) * SECOND))
            for sign, cpu in (worker(at) for worker in workers)
        ]
        answers.append(judge.look(int((100 + at) * SECOND), health))
    return answers


def first(answers):
    """When a worker was first taken for stuck, in seconds, and which; None: never."""
    for number, answer in enumerate(answers):
        if answer is not None:
            return number * LOOK_SECONDS, answer[0]
    return None


def busy(at):
    return at, at


def test_who_gives_signs_is_alive_however_little_it_runs():
    assert first(seen(busy, lambda at: (at, 0.0))) is None


def test_who_is_held_is_stuck():
    at, worker = first(seen(busy, lambda at: (min(at, 3.0), min(at, 3.0))))
    assert worker == 1
    assert at == 5.5


def test_its_silence_is_told():
    answers = seen(lambda at: (min(at, 3.0), 0.0))
    assert next(answer for answer in answers if answer) == (0, 2.5)


def test_who_runs_and_gets_nowhere_is_stuck():
    assert first(seen(busy, lambda at: (min(at, 3.0), at))) == (5.5, 1)


def test_who_runs_but_seldom_gets_on():
    """With a share of 10 % of a CPU: it is not this process that is at fault."""
    assert first(seen(lambda at: (at // 4 * 4, at / 10), seconds=60.0)) is None


def test_who_is_not_let_run_is_not_stuck():
    """On a CPU that others have for seconds on end it can't give signs."""
    seldom = lambda at: (at // 5 * 5, at // 5 / 10)  # noqa: E731
    assert first(seen(busy, seldom, seconds=60.0, can_run=lambda _worker: True)) is None


def test_who_hangs_beside_one_that_is_not_let_run_is_stuck():
    held = lambda at: (min(at, 3.0), 0.0)  # noqa: E731
    assert first(seen(held, held, can_run=lambda worker: worker == 0)) == (5.5, 1)


def test_not_for_ever():
    at, _ = first(seen(lambda at: (min(at, 1.0), at / 100), seconds=3 * LONGEST_SECONDS))
    assert LONGEST_SECONDS < at < LONGEST_SECONDS + 3


def test_where_the_cpu_time_is_unknown_signs_alone_tell():
    assert first(seen(busy, lambda at: (min(at, 3.0), 0.0))) == (5.5, 1)


def test_of_several_the_one_that_was_first():
    """Those who wait for it fall silent later."""
    found = first(seen(lambda at: (min(at, 3.2), 0.0), lambda at: (min(at, 3.0), 0.0)))
    assert found is not None
    assert found[1] == 1


def test_a_worker_that_never_ran_is_not_stuck():
    judge = StuckWorkers()
    for number in range(20):
        assert judge.look(number * SECOND // 2, [(0, 0, 0)]) is None


def test_a_process_that_was_stopped_is_not_stuck():
    """Its first looks afterwards find old signs, for it is not yet scheduled as before."""
    judge = StuckWorkers()
    for at, sign in [(1.0, 1.0), (1.5, 1.5), (60.0, 1.5), (60.5, 1.5), (61.0, 61.0), (61.5, 61.5)]:
        assert judge.look(int(at * SECOND), [(int(sign * SECOND), 0, 5)]) is None
