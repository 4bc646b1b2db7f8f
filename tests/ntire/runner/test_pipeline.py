import threading
import time
import weakref

import pytest

from ntire.runner.pipeline import Gone, Pipeline, Settled, Station


class Item:
    """Something that can be seen to be alive."""

    def __init__(self, number):
        self.number = number


def numbered(item):
    return item.number


def gather(flow, came):
    """Add to `came` what comes, up to an exception."""
    for value in flow:
        came.append(value)


def jittered(item):
    # Later items overtake earlier ones.
    time.sleep(0.002 * (7 - item.number % 7))
    return item


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items_whatever_the_number_of_workers(workers):
    stages = (
        Station("first", [jittered] * workers),
        Station("second", [jittered]),
        Station("third", [numbered] * workers),
    )
    with Pipeline(map(Item, range(40)), stages, ahead=1) as flow:
        assert list(flow) == list(range(40))


def test_items_leave_the_first_stage_in_order_though_some_take_longer():
    seen = []

    def watched(item):
        seen.append(item.number)
        return item.number

    with Pipeline(
        map(Item, range(30)), (Station("read", [jittered] * 4), Station("restore", [watched])), ahead=1
    ) as flow:
        assert list(flow) == seen == list(range(30))


def test_what_is_done_before_its_turn_can_be_had_without_waiting():
    gate = threading.Event()

    def stuck_on_first(number):
        if number == 0:
            gate.wait(10)
        return number

    with Pipeline(range(4), (Station("read", [abs]), Station("restore", [stuck_on_first] * 2)), ahead=1) as flow:
        flow._feed()
        while flow._finished.qsize() < 3:
            time.sleep(0.001)
        assert list(flow.done_early()) == [1, 2, 3]
        gate.set()
        assert list(flow) == [0, 1, 2, 3]


@pytest.mark.parametrize("items", [20, 120])
def test_only_so_many_items_are_alive_however_many_there_are(items):
    alive, most = set(), 0
    lock = threading.Lock()

    def made(number):
        nonlocal most
        item = Item(number)
        with lock:
            alive.add(number)
            weakref.finalize(item, alive.discard, number)
            most = max(most, len(alive))
        return item

    def slow(item):
        time.sleep(0.001)
        return item

    stages = (Station("make", [made] * 3), Station("pass", [slow] * 2), Station("end", [slow, numbered][1:]))
    with Pipeline(range(items), stages, ahead=1) as flow:
        assert list(flow) == list(range(items))
    # In hand, and in the queues between; not those that wait to be made, and none that is done.
    assert 2 <= most <= 3 + 1 + 2 + 1 + 1
    assert flow.limit == 6 + 2


def test_what_is_under_way_weighs_no_more_than_there_is_room_for_and_a_heavier_item_goes_alone():
    weights = [3, 4, 2, 30, 1, 1, 9, 5, 5, 5, 2] * 4
    under_way, most, lock = {}, [], threading.Lock()

    def begin(place):
        with lock:
            under_way[place] = weights[place]
            most.append((sum(under_way.values()), len(under_way)))
        time.sleep(0.001)
        return place

    stages = (Station("make", [begin] * 4), Station("end", [lambda place: place] * 2))
    came = []
    with Pipeline(range(len(weights)), stages, ahead=2, weigh=weights.__getitem__, room=10) as flow:
        for place in flow:
            with lock:
                del under_way[place]
            came.append(place)
    assert came == list(range(len(weights)))
    assert all(weight <= 10 or count == 1 for weight, count in most)
    assert max(count for _, count in most) > 1


def test_stages_work_at_the_same_time():
    def nap(item):
        time.sleep(0.02)
        return item

    began = time.perf_counter()
    with Pipeline(range(15), [Station(name, [nap]) for name in ("read", "restore", "write")], ahead=1) as flow:
        list(flow)
    assert time.perf_counter() - began < 0.7 * 3 * 15 * 0.02


def test_the_busiest_stage_shows():
    def nap(seconds):
        return lambda item: time.sleep(seconds) or item

    stages = (Station("read", [nap(0.001)] * 2), Station("restore", [nap(0.01)]), Station("write", [nap(0.002)]))
    with Pipeline(range(20), stages, ahead=1) as flow:
        list(flow)
    read, restore, write = flow.use({})
    assert (restore.name, restore.workers) == ("restore", 1)
    assert restore.share > 0.5 > write.share > read.share
    assert restore.busy_seconds >= 0.2
    assert flow.use({"write": 1e3})[2].busy_seconds == 1e3
    assert flow.use({"restore": 1e-6})[1] == restore


def test_waiting_for_an_item_to_be_ready_is_not_work():
    stages = (
        Station("give", [lambda item: item]),
        Station("take", [lambda item: item], ready=lambda item: time.sleep(0.02)),
    )
    with Pipeline(range(5), stages, ahead=1) as flow:
        list(flow)
    assert flow.use({})[1].busy_seconds < 0.05


def test_an_item_that_is_settled_skips_the_rest_and_keeps_its_place():
    seen = []

    def settles_odd(number):
        return Settled(-number) if number % 2 else number

    def watched(number):
        seen.append(number)
        return number

    with Pipeline(range(8), (Station("first", [settles_odd] * 2), Station("second", [watched])), ahead=1) as flow:
        assert list(flow) == [0, -1, 2, -3, 4, -5, 6, -7]
    assert seen == [0, 2, 4, 6]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_failure_is_raised_in_its_place_and_what_has_come_far_enough_still_comes_out(stage):
    def fails(number):
        if number == 5:
            raise OSError("disk full")
        return number

    def fine(number):
        return number

    stages = [Station(str(place), [fails if place == stage else fine] * 2) for place in range(3)]
    came = []
    with Pipeline(range(30), stages, ahead=1) as flow:
        with pytest.raises(OSError, match="disk full"):
            gather(flow, came)
        assert came == list(range(5))
        flow.stop()
        rest = list(flow)
    assert rest == sorted(rest)
    assert 5 not in rest
    assert max(rest, default=0) < 5 + flow.limit + 2


def test_after_a_failure_the_others_can_go_on():
    def fails(number):
        if number % 4 == 1:
            raise ValueError(number)
        return number

    came, failed = [], []
    with Pipeline(range(12), [Station("only", [fails] * 3)], ahead=1) as flow:
        while True:
            try:
                came.append(next(flow))
            except ValueError as error:
                failed.append(error.args[0])
            except StopIteration:
                break
    assert (came, failed) == ([0, 2, 3, 4, 6, 7, 8, 10, 11], [1, 5, 9])


def test_a_worker_that_is_gone_leaves_its_work_to_the_others():
    done = {"steady": 0, "weak": 0}

    def steady(number):
        time.sleep(0.002)
        done["steady"] += 1
        return number

    def weak(number):
        if done["weak"] == 2:
            raise Gone(-number)
        done["weak"] += 1
        return number

    stages = (Station("read", [lambda number: number]), Station("restore", [steady, weak]), Station("write", [abs]))
    with Pipeline(range(1, 31), stages, ahead=1) as flow:
        came = list(flow)
    assert [abs(number) for number in came] == list(range(1, 31))
    assert sum(number < 0 for number in came) == 1, "the one that it had is settled by it"
    assert done["weak"] == 2


def test_when_the_last_worker_of_a_stage_is_gone_the_rest_fails_with_its_reason():
    def weak(number):
        if number == 3:
            raise Gone("lost with it") from ConnectionError("device lost")
        return number

    came = []
    with Pipeline(range(30), (Station("restore", [weak]), Station("write", [lambda number: number])), ahead=1) as flow:
        with pytest.raises(ConnectionError, match="device lost"):
            gather(flow, came)
        flow.stop()
        assert list(flow) == []
    assert came == [0, 1, 2, "lost with it"]


def test_stopping_drops_what_waits_and_finishes_what_has_reached_the_last_stage():
    begun, gate = [], threading.Event()

    def restore(number):
        begun.append(number)
        return number

    def write(number):
        gate.wait(10)
        return number

    with Pipeline(range(50), (Station("restore", [restore]), Station("write", [write])), ahead=1) as flow:
        flow._feed()
        while len(begun) < 3:  # one is being written, one waits for that, one cannot be handed over
            time.sleep(0.001)
        flow.stop()
        gate.set()
        assert list(flow) == [0, 1, 2]
    assert begun == [0, 1, 2]


def test_no_thread_is_left_when_it_is_over():
    before = threading.active_count()
    with Pipeline(range(5), [Station("a", [abs] * 3), Station("b", [abs] * 2)], ahead=1) as flow:
        list(flow)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
