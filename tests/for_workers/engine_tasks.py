"""What tests of engines have done by workers, which import it by name."""

import os
import signal
import sys
import time

from ntire import UserError


def double(desk, number):
    sys.stdout.write(f"doubling {number}\n")
    return 2 * number


def fail(desk):
    sys.stderr.write("about to fail\n")
    raise ValueError("of course\nmore")


def prepared(desk, word):
    if word == "unable":
        raise UserError("weights are missing", exit_code=3)
    return f"{word} {os.getpid()}"


def with_state(desk):
    return desk.state


def die_once(desk, marker):
    """Kills its worker the first time, as the system does when memory runs out."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


def die(desk):
    os.kill(os.getpid(), signal.SIGKILL)


def slow_once(desk, marker):
    """Hangs the first time, as on a machine that is slow beyond measure."""
    if not marker.exists():
        marker.touch()
        time.sleep(600)
    return "quick"


def read(desk, path):
    return desk.here(path).read_bytes(), desk.here(path) != path


def unpicklable(desk):
    return lambda: None


def many_bytes(desk, value, count):
    return bytes([value]) * count


def prepared_unless_lacking(desk):
    if os.environ.get("LACKS_WEIGHTS"):
        raise UserError("weights are missing", exit_code=3)
    return "weights"


class Occupant:
    """Holds a processor, so that a node takes no work."""

    def here(self):
        return True


def full_disk_once(desk, marker):
    if not marker.exists():
        marker.touch()
        raise UserError("scratch: no space left", exit_code=3)
    return "room"
