"""Memory for decoded images: who waits, and for whom."""

import threading

from spherequant.service.room import Room


def test_what_does_not_fit_waits_until_it_does():
    room = Room(100)
    room.take(60)
    room.take(40)
    came = threading.Event()
    thread = threading.Thread(target=lambda: (room.take(50), came.set()))
    thread.start()
    assert not came.wait(0.05)
    room.give_back(40)
    assert not came.wait(0.05)
    room.give_back(60)
    assert came.wait(30)
    thread.join()
    assert room._taken == 50


def test_what_never_fits_goes_alone():
    room = Room(100)
    room.take(1_000)
    room.give_back(1_000)
    assert room._taken == 0
