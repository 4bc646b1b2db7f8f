"""What submitted code tries from inside the sandbox: reach out, read, write, gain rights, stay, take too much."""

import json
import os
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

import ntire.sandbox.child as sandbox
import ntire.sandbox.limits as limits
from ntire import UserError
from ntire.picture.image import as_pixels, encode_png, read_image
from ntire.sandbox import seccomp
from ntire.sandbox.child import Child, Place, bubblewrap, choose, container, why_not
from ntire.sandbox.escape_attempts import ATTEMPTS
from ntire.sandbox.limits import Limits, family, hold
from ntire.sandbox.system_calls import ALLOWED
from tests.made import scene, write_png

sandboxed = pytest.mark.skipif(bool(why_not("bubblewrap")), reason=f"no sandbox here: {why_not('bubblewrap')}")
SMALL = Limits(
    seconds=20,
    memory_bytes=1 << 28,
    processes=64,
    files=64,
    file_bytes=1 << 20,
    scratch_bytes=4 << 20,
    printed_bytes=1 << 20,
)
METHOD = """
from ntire.method import Method

class Mine(Method):
    team, track, cite, tiling, halo, stride = "Mine", "srgb", "x", "exact", 0, 1
    settable, by = {"by": "how much is added"}, "0.05"
    def forward(self, lq):
        return lq + float(self.by)
"""
LIGHT = """
import os, sys, time, types
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from ntire.review import submitted_method_child as inside

def restore_one(code, path, fingerprint):
    exec(code, globals())
    return types.SimpleNamespace(tile=None, notes=(), seconds=0.0), b"png"

def load(self, request):
    self._ready = request["file"]
    return {"status": "loaded"}

sys.modules["ntire.runner.device_worker"] = types.SimpleNamespace(restore_one=restore_one)
sys.modules["ntire.picture.image"] = types.SimpleNamespace(encode_png=lambda pixels: pixels)
inside._Server._load = load
inside.main()
"""
"""The child without PyTorch, which takes seconds to load: a method that does what one line of Python says."""


@pytest.fixture
def place(tmp_path) -> Place:
    for name in ("sub", "in"):
        (tmp_path / name).mkdir(mode=0o755)
    write_png(tmp_path / "in" / "a.png", scene())
    # The dropped user must find its way, as it does from the folders that `ntire verify` makes.
    base = Path(tempfile.gettempdir())
    for folder in (tmp_path, *(one for one in tmp_path.parents if base in one.parents)):
        folder.chmod(0o755)
    return Place(tmp_path / "sub", tmp_path / "in")


def restore(child: Child, name: str = "a.png", seconds: float = 20, heard=None):
    request = {"op": "restore", "path": child.path_of(name), "fingerprint": "a" * 64, "tell": heard is not None}
    return child.ask(request, seconds, 1 << 20, heard)


def load(child: Child, file: str, tile: int | str = "auto", **settings: str):
    assert child.begin("cpu").fields["status"] == "ready", child.printed
    request = {
        "op": "load",
        "file": file,
        "only": "",
        "precision": "fp32",
        "tile": tile,
        "bits": 8,
        "settings": settings,
    }
    answer = child.ask(request, 120)
    assert answer.fields["status"] == "loaded", child.printed


@pytest.fixture
def act(place, monkeypatch):
    """Two answers of a method that does a line of Python on its first picture, and what it printed."""
    monkeypatch.setattr(sandbox, "RUN_INSIDE", lambda module: LIGHT)

    def run(line: str, limits: Limits = SMALL, backend="bubblewrap"):
        with Child(backend, place, limits) as child:
            load(child, f"if not globals().get('done'):\n  done = True\n  {line}")
            answers = [restore(child, seconds=limits.seconds) for _ in range(2)]
            return *answers, child.printed

    return run


@sandboxed
def test_torch_code_restores_the_same_pixels_inside_in_seconds(place):
    (place.code / "method.py").write_text(METHOD)
    began, heard = time.monotonic(), []
    with Child("bubblewrap", place, Limits()) as child:
        load(child, "method.py", tile=24, by="0.1")
        answer = restore(child, heard=lambda done, of: heard.append((done, of)))
    assert time.monotonic() - began < 60
    assert answer.fields["status"] == "done"
    expected = as_pixels((read_image(place.exchange / "a.png") + 0.1).clamp(0, 1))
    assert answer.data == encode_png(expected)
    assert heard == [(1, 4)]


ANSWER = b'{"status": "done", "bytes": 3}\npng'
WORDS = {
    "in order": ([[0, 4], [3, 4], [4, 4]], "answered"),
    "very many": ([[1, 2]] * (sandbox.MOST_WORDS + 1), "died"),
    "without end": ([[1, sandbox.MOST_PARTS + 1]], "died"),
    "negative": ([[-1, 4]], "died"),
    "too many": ([[5, 4]], "died"),
    "no whole numbers": ([[0.5, 4]], "died"),
    "truths": ([[True, True]], "died"),
    "three": ([[1, 2, 3]], "died"),
    "a text": (["12"], "died"),
    "an object": ([{"1": 2}], "died"),
}


@pytest.mark.parametrize("words", WORDS)
def test_how_far_a_child_says_it_is_is_two_whole_numbers_now_and_then_or_its_end(place, monkeypatch, words):
    said, state = WORDS[words]
    lines = b"".join(b'{"advanced": %s}\n' % json.dumps(one).encode() for one in said) + ANSWER
    (place.code / "lines").write_bytes(lines)
    program = (
        f"import sys; sys.stdin.readline(); sys.stdout.buffer.write(open({str(place.code / 'lines')!r}, 'rb').read())"
    )
    monkeypatch.setattr(sandbox, "RUN_INSIDE", lambda module: f"{program}; sys.stdout.flush(); sys.stdin.read()")
    monkeypatch.setattr(sandbox, "BETWEEN_WORDS", 3600.0)
    heard = []
    with Child("none", place, SMALL) as child:
        answer = child.ask({}, 20, 10, lambda done, of: heard.append((done, of)))
    assert answer.state == state, answer.problem
    assert answer.data == (b"png" if state == "answered" else b"")
    assert heard == ([(0, 4)] if words == "in order" else [(1, 2)] if words == "very many" else [])


def test_words_prolong_nothing_and_are_no_answer_where_nobody_asked_for_them(place, monkeypatch):
    loop = "while True: print('{\"advanced\": [1, 2]}', flush=True); time.sleep(0.01)"
    program = f"import sys, time\nsys.stdin.readline()\n{loop}"
    monkeypatch.setattr(sandbox, "RUN_INSIDE", lambda module: program)
    with Child("none", place, SMALL) as child:
        assert child.ask({}, 0.5, 10, lambda done, of: None).state == "timed out"
    with Child("none", place, SMALL) as child:
        assert "status" not in child.ask({}, 20, 10).fields


def bait(secret: Path, service: socket.socket, name: str):
    return {"secret": str(secret), "port": service.getsockname()[1], "abstract": name, "process": os.getpid()}


@sandboxed
def test_every_attempt_to_escape_is_stopped(place, tmp_path):
    secret = Path.home() / ".secret"
    secret.write_text("planted")
    name = f"ntire-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as service, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        with Child("bubblewrap", place, SMALL, module="ntire.sandbox.escape_attempts") as child:
            answer = child.ask(bait(secret, service, name), 60)
    assert answer.state == "answered", answer.problem
    assert set(answer.fields) == set(ATTEMPTS)
    assert [f"{name}: {one['how']}" for name, one in answer.fields.items() if not one["stopped"]] == []


AS_USER = """
import json, os, sys
from pathlib import Path
from ntire.sandbox.limits import Limits
from ntire.sandbox.child import Child, Place, why_not
assert os.getuid() != 0
reason = why_not("bubblewrap")
if reason:
    sys.exit(reason)
place = Place(Path(sys.argv[1]), Path(sys.argv[1]))
with Child("bubblewrap", place, Limits(), module="ntire.sandbox.escape_attempts") as child:
    answer = child.ask({"secret": sys.argv[2], "process": os.getpid()}, 60)
    print(json.dumps([answer.state, child.held_by, [name for name, one in answer.fields.items() if not one["stopped"]]]))
"""


@sandboxed
def test_an_ordinary_user_has_the_same_sandbox(place, tmp_path):
    root = Path(__file__).parents[3]
    drop = ["setpriv", "--reuid", "1500", "--regid", "1500", "--clear-groups"] if os.geteuid() == 0 else []
    for python in (sys.executable, "/usr/bin/python3"):
        words = [*drop, python, "-c", AS_USER, place.code, "/etc/passwd"]
        ran = subprocess.run(
            words, capture_output=True, text=True, cwd="/", env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root}
        )
        if "Permission denied" not in ran.stderr and ran.returncode != 127:
            break
    else:
        pytest.skip("no Python here that another user may run")
    if "cannot make a sandbox here" in ran.stderr:
        pytest.skip(ran.stderr)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)[::2] == ["answered", []]


@sandboxed
@pytest.mark.parametrize(
    ("line", "state", "words"),
    [
        ("time.sleep(60)", "timed out", "no answer within 4 s"),
        ("os.kill(os.getpid(), 11); import ctypes; ctypes.string_at(0)", "died", "SIGSEGV"),
        ("os._exit(0)", "died", "exit code 0 and gave no answer"),
        ("[print('x' * (1 << 16)) for _ in range(1 << 14)]", "over a limit", "printed text"),
        ("os.write(1, b'x' * (8 << 20))", "over a limit", "printed text"),
        ("keep = [bytearray(b'x' * (1 << 26)) for _ in range(64)]", None, "emory"),
        ("[os.fork() for _ in range(9)]; time.sleep(30)", None, ""),
        ("import ctypes; ctypes.CDLL(None).prctl(1, 0); time.sleep(60)", "timed out", ""),
        ("os.close(3), os.close(4), os.close(5), os.close(6), time.sleep(30)", None, ""),
        ("[os.write(n, b'[' * 100000) for n in range(3, 8) if os.path.exists(f'/proc/self/fd/{n}')]", None, ""),
    ],
)
def test_code_that_misbehaves_ends_and_says_how(act, line, state, words):
    began = time.monotonic()
    answer, after, printed = act(line, replace(SMALL, seconds=4))
    assert time.monotonic() - began < 20
    assert after.state != "answered" or answer.state == "answered"
    assert answer.fields.get("status") != "done"
    assert answer.state == state or state is None
    assert words in answer.problem + str(answer.fields.get("problem"))
    assert len(printed) < 20_000


@sandboxed
@pytest.mark.parametrize(
    "line",
    [
        "Path('/out/big').write_bytes(bytes(2 << 20))",
        "[Path(f'/out/{n}').write_bytes(bytes(1 << 20)) for n in range(9)]",
        "[Path(f'/tmp/{n}').write_bytes(bytes(1 << 20)) for n in range(9)]",
        "[Path(f'/dev/shm/{n}').write_bytes(bytes(1 << 20)) for n in range(9)]",
        "files = [open('/dev/null') for _ in range(200)]",
        "raise SystemExit(0)",
        "raise KeyError('\\x1b[2J')",
    ],
)
def test_a_limit_that_is_met_is_the_code_s_own_error_and_the_next_picture_is_done(act, line):
    first, second, _ = act(line)
    assert first.fields["status"] == "failed"
    assert first.fields["problem"]
    # What fills the folder of outputs is in its own way.
    assert second.fields["status"] == "done" or "/out" in line


@sandboxed
def test_nothing_of_it_is_left_when_it_is_over(act, monkeypatch):
    held = []
    monkeypatch.setattr(sandbox, "hold", lambda *words: held.append(hold(*words)) or held[-1])
    long = f"432{os.getpid()}"
    sleep = f"os.execv('/usr/bin/sleep', ['sleep', '{long}'])"
    act(f"[(os.setsid(), {sleep}) for _ in range(3) if os.fork() == 0]; time.sleep(60)", replace(SMALL, seconds=4))
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"sleep {long}" not in running
    assert not any(group.exists() for one in held for group in one.groups)
    assert len(held) == 1
    assert family(os.getpid()) >= {os.getpid()}


@sandboxed
def test_the_limits_that_are_recorded_are_in_force(place):
    with Child("bubblewrap", place, SMALL) as child:
        ready = child.begin("cpu").fields
    assert ready["uid"] != 0
    assert (ready["capabilities"], ready["no_new_privileges"], ready["seccomp"]) == (0, True, True)
    held = hold(["sh", "-c", "for n in $(seq 100); do sleep 1 & done; wait"], replace(SMALL, processes=20))
    if held.groups:
        ran = subprocess.run(held.argv, capture_output=True, text=True, timeout=60)
        assert "fork" in ran.stderr
        assert held.went_over() == "processes"
    held.release()
    assert not any(group.exists() for group in held.groups)


def test_without_a_sandbox_limits_and_clock_still_hold(act, place):
    answer, _, _ = act("time.sleep(60)", replace(SMALL, seconds=2), backend="none")
    assert answer.state == "timed out"
    with pytest.raises(ValueError, match="damage"):
        Child("none", place, SMALL, module="ntire.sandbox.escape_attempts")


def test_a_gpu_that_is_asked_for_is_seen_or_the_run_ends(place):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with Child("none", place, replace(SMALL, memory_bytes=8 << 30)) as child:
        assert child.begin("cuda").fields["status"] == "no device"


def test_auto_never_means_no_sandbox_and_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sandbox, "why_not", lambda backend: "" if backend == "none" else "not here")
    with pytest.raises(UserError) as raised:
        choose("auto")
    assert raised.value.exit_code == 3
    assert "apt-get install bubblewrap" in str(raised.value)
    assert choose("none") == "none"
    with pytest.raises(UserError, match="expected auto"):
        choose("chroot")


def test_a_missing_bwrap_is_a_reason_not_an_error(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert why_not.__wrapped__("bubblewrap") == "bwrap is not installed"
    assert why_not.__wrapped__("docker") == "docker is not installed"


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_container_has_no_network_no_rights_and_nothing_to_write_but_scratch(place, engine):
    weights = {"net.safetensors": Path("/w/net.safetensors")}
    words = container(engine, "n", replace(place, weights=weights, device="cuda:1"), SMALL, ["python", "-I"])
    line = " ".join(words)
    assert words[:2] == [engine, "run"]
    for part in (
        "--network none",
        "--read-only",
        "--cap-drop ALL",
        "no-new-privileges",
        "--pids-limit 64",
        f"--memory {1 << 28}",
    ):
        assert part in line
    mounts = [word for word in words if word.startswith("type=bind")]
    assert len(mounts) == 3
    assert all(word.endswith(",readonly") for word in mounts)
    assert f"/out:rw,nosuid,nodev,size={4 << 20},mode=1777" in words
    assert ("device=1" if engine == "docker" else "nvidia.com/gpu=1") in words
    assert words[-6:] == ["/usr/bin/timeout", sandbox.image(), "--signal=KILL", "43200", "python", "-I"]
    assert "--privileged" not in line


def test_only_the_nodes_of_the_one_gpu_are_passed_in(tmp_path):
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia5", "nvidiactl", "nvidia-uvm", "sda"):
        (tmp_path / "dev" / name).touch()
    for bus, minor in (("0000:01:00.0", 5), ("0000:02:00.0", 1)):
        folder = tmp_path / "proc/driver/nvidia/gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: X\nDevice Minor: \t {minor}\n")
    words = sandbox._devices("cuda", tmp_path)
    assert {word for word in words if word.startswith("/dev")} == {"/dev/nvidia5", "/dev/nvidiactl", "/dev/nvidia-uvm"}
    assert "/dev/nvidia1" in sandbox._devices("cuda:1", tmp_path)


def test_the_environment_of_the_user_does_not_go_in(place, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "planted")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    line = " ".join(bubblewrap(place, SMALL, 9, ["true"]))
    assert "planted" not in line
    assert "--clearenv" in line
    assert "--setenv OMP_NUM_THREADS 3" in line
    assert str(Path.home()) not in line or sys.prefix.startswith(str(Path.home()))


NUMBERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"#define __NR_(\w+) (\d+)"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), r"#define __NR(?:3264)?_(\w+) (\d+)"),
}


@pytest.mark.parametrize("machine", NUMBERS)
def test_the_numbers_of_system_calls_are_the_kernel_s(machine):
    header, pattern = NUMBERS[machine]
    if not header.is_file():
        pytest.skip(f"{header} is not here")
    known = {name: int(number) for name, number in re.findall(pattern, header.read_text())}
    ours = {name: numbers[seccomp.MACHINES[machine].column] for name, numbers in seccomp.DENIED.items()}
    close = seccomp.MACHINES[machine]
    ours |= ALLOWED[machine]
    ours |= {"clone": close.clone, "socket": close.socket, "ioctl": close.ioctl, "clone3": seccomp.CLONE3}
    assert {name: known.get(name, number) for name, number in ours.items()} == ours
    assert len(known.keys() & ours.keys()) > 200


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None, counted: bool = True) -> int:
    """What the filter says, by the rules of linux/filter.h, followed here one instruction after the other."""
    program = list(struct.iter_unpack("<HBBI", seccomp.program(machine, counted=counted)))
    data = struct.pack("<IIQ6Q", number, audit or seccomp.MACHINES[machine].audit, 0, *(*arguments, *[0] * 6)[:6])
    register = at = 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (register,) = struct.unpack_from("<I", data, value)
        else:
            holds = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter_lets_through_what_is_listed_and_nothing_else(machine):
    known, allowed = seccomp.MACHINES[machine], ALLOWED[machine]
    eperm, enosys, eafnosupport, eprotonosupport = (seccomp.ERRNO | number for number in (1, 38, 97, 93))
    assert {verdict(machine, number) for number in allowed.values()} == {seccomp.ALLOW}
    by_argument = {known.clone, known.socket, known.ioctl}
    others = set(range(1000)) - set(allowed.values()) - by_argument
    assert {verdict(machine, number) for number in others if number <= seccomp.LAST and number != 435} == {eperm}
    assert {verdict(machine, number) for number in others if number > seccomp.LAST or number == 435} == {enosys}
    assert {verdict(machine, numbers[known.column]) for numbers in seccomp.DENIED.values()} <= {eperm, enosys}
    assert verdict(machine, known.clone, 0x10000011) == eperm
    assert verdict(machine, known.clone, 0x3D0F00) == seccomp.ALLOW  # a thread
    assert [verdict(machine, known.socket, one, 1, 0) for one in (1, 2, 10, 16)] == [seccomp.ALLOW] * 4
    assert [verdict(machine, known.socket, one, 1, 0) for one in (0, 17, 31, 38, 40)] == [eafnosupport] * 5
    # MPTCP, UDP-Lite, ICMP, and netlink of the firewall
    strange = [(2, 1, 262), (10, 2, 136), (2, 2, 1), (16, 3, 12)]
    assert [verdict(machine, known.socket, *one) for one in strange] == [eprotonosupport] * 4
    assert verdict(machine, known.ioctl, 0, 0x5412) == eperm
    assert verdict(machine, known.ioctl, 0, 0x5413) == seccomp.ALLOW
    assert verdict(machine, 0, audit=3) == seccomp.KILL
    assert verdict(machine, 0x40000001) == enosys


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_memory_that_nobody_counts_is_refused_where_no_control_group_does(machine):
    hidden = {ALLOWED[machine][name] for name in seccomp.HIDDEN_MEMORY}
    with_groups, without = (
        {number for number in range(500) if verdict(machine, number, counted=one) == seccomp.ALLOW}
        for one in (True, False)
    )
    assert with_groups - without == hidden


def test_a_machine_without_a_filter_has_no_sandbox(monkeypatch):
    assert seccomp.program("riscv64") is None
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "seccomp" in why_not.__wrapped__("bubblewrap")


@sandboxed
def test_the_doctor_says_what_is_enforced_after_trying_it():
    from ntire.commands.installation import HELD, examine

    rows = {check.name: check for check in examine() if check.name.startswith("sandbox")}
    assert rows["sandbox"].state == "ok"
    assert "bubblewrap" in rows["sandbox"].found
    parts = [rows[f"sandbox: {part}"] for part in ("network", "files", "processes", "rights", "kernel")]
    assert all(re.fullmatch(r"(\d+) of \1 attempts to get out were stopped", one.found) for one in parts)
    assert sum(int(one.found.split()[0]) for one in parts) == len(ATTEMPTS)
    assert all(rows[f"sandbox: {what}"].found for what in HELD)


def test_a_systemd_scope_limits_memory_and_processes_and_passes_no_environment_on(monkeypatch):
    monkeypatch.setattr(limits, "means", lambda: "systemd scope")
    held = hold(["bwrap", "x"], SMALL)
    line = " ".join(held.argv)
    assert f"MemoryMax={1 << 28} -p MemorySwapMax=0 -p TasksMax=64 -- /usr/bin/env -i bwrap x" in line
    assert ("--user" in held.argv) == (os.geteuid() != 0)
    assert held.whole_memory


@pytest.mark.parametrize(("version", "file"), [("cgroup v2", "memory.events"), ("cgroup v1", "memory.oom_control")])
def test_control_groups_tell_what_was_too_much(tmp_path, version, file):
    held = limits.Held((), version, (tmp_path,))
    (tmp_path / file).write_text("low 0\noom_kill 0\n")
    (tmp_path / "pids.events").write_text("max 0\n")
    assert held.went_over() == ""
    (tmp_path / "pids.events").write_text("max 3\n")
    assert held.went_over() == "processes"
    (tmp_path / file).write_text("low 0\noom_kill 1\n")
    assert held.went_over() == "memory"


def test_control_groups_are_made_where_their_controllers_are_on(tmp_path, monkeypatch):
    """Version 2: the group of this process or a parent of it, if memory and pids are passed on to children there."""
    own = tmp_path / "user.slice" / "session"
    own.mkdir(parents=True)
    for folder, passed_on in ((own, ""), (own.parent, "cpu memory pids"), (tmp_path, "cpu")):
        (folder / "cgroup.subtree_control").write_text(passed_on)
    real = Path.read_text
    monkeypatch.setattr(limits, "CGROUPS", tmp_path)
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, *a: "0::/user.slice/session\n" if str(self) == "/proc/self/cgroup" else real(self, *a),
    )
    assert list(limits._parents("cgroup v2", {"memory", "pids"})) == [own.parent]
    assert list(limits._parents("cgroup v1", {"memory"})) == []


@sandboxed
def test_where_only_rlimits_are_to_be_had_memory_is_still_limited(act, monkeypatch):
    monkeypatch.setattr(limits, "means", lambda: "rlimits")
    small = replace(SMALL, seconds=20)
    first, _, _ = act("keep = [bytearray(b'x' * (1 << 26)) for _ in range(64)]", small)
    assert "emory" in first.problem + str(first.fields.get("problem"))
    # Each of these stays below what one process may have.
    spread = "[(bytearray(b'x' * (1 << 27)), time.sleep(30)) for n in range(5) if os.fork() == 0]; time.sleep(30)"
    first, _, _ = act(spread, small)
    assert (first.state, "memory" in first.problem) == ("over a limit", True)


@sandboxed
@pytest.mark.parametrize(
    "line",
    [
        "[Path(f'/tmp/{n}').write_bytes(bytes(1 << 20)) for n in range(300)]; time.sleep(30)",
        "[Path(f'/dev/shm/{n}').touch() for n in range(400_000)]; time.sleep(30)",
    ],
)
def test_files_in_memory_count_where_only_rlimits_are_to_be_had(act, monkeypatch, line):
    monkeypatch.setattr(limits, "means", lambda: "rlimits")
    monkeypatch.setattr(sandbox, "means", lambda: "rlimits")
    first, _, _ = act(line, replace(SMALL, scratch_bytes=1 << 30, seconds=25))
    assert (first.state, "memory" in first.problem) == ("over a limit", True)


@sandboxed
def test_memory_that_nobody_counts_is_refused_inside(act, monkeypatch):
    monkeypatch.setattr(limits, "means", lambda: "rlimits")
    monkeypatch.setattr(sandbox, "means", lambda: "rlimits")
    first, _, _ = act("os.memfd_create('x')")
    assert "PermissionError" in first.fields["problem"]


@sandboxed
def test_the_command_line_inside_shows_no_path_of_an_entry(act, place):
    first, _, _ = act("raise KeyError(str([p.read_bytes() for p in Path('/proc').glob('[0-9]*/cmdline')])[:400])")
    assert "bwrap" in first.fields["problem"] or "python" in first.fields["problem"]
    assert str(place.code.parent) not in first.fields["problem"]
