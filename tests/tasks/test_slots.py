import threading

from tasks.slots import Slots


def test_no_more_threads_get_a_slot_than_there_are() -> None:
    slots = Slots(1)
    with slots.take() as first, slots.take() as second:
        assert (first.taken, second.taken) == (True, False)
    with slots.take() as third:
        assert third.taken


def test_a_holder_hears_of_those_who_came_in_vain() -> None:
    slots = Slots(1)
    with slots.take() as holder:
        with slots.take():
            pass
        assert not holder.asked_for
    assert holder.asked_for
    with slots.take() as next_holder:
        pass
    assert not next_holder.asked_for


def test_no_ring_is_lost_between_threads_that_come_and_go() -> None:
    """Rings and work are counted as a worker does it: whoever is awake goes on while there is work."""
    slots, lock = Slots(2), threading.Lock()
    waiting, done = 0, 0

    def run_next() -> bool:
        nonlocal waiting, done
        with slots.take() as slot:
            found = False
            if slot.taken:
                with lock:
                    found = waiting > 0
                    waiting -= found
                    done += found
        return found or slot.asked_for

    def ring(times: int) -> None:
        nonlocal waiting
        for _ in range(times):
            with lock:
                waiting += 1
            while run_next():
                pass

    threads = [threading.Thread(target=ring, args=(3000,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (waiting, done) == (0, 9000)
