"""The operating system's walls around a process that runs SQL of strangers. Linux, through ctypes.

`enter` closes them one by one, before the process has read anything untrusted, and says which stand:

    descriptors   nothing inherited but the two pipes; RLIMIT_NOFILE
    limits        no core, bounded files (RLIMIT_FSIZE) and private memory (RLIMIT_DATA) as a backstop to the server's
                  own watch, first to die when the machine is short of memory, last to get the processor
    terminal      none, and a process group of its own
    landlock      the file system is readable in the given folders and nowhere else, executable nowhere, and writable
                  nowhere or in one folder that only this process uses (plain files alone); no TCP, no signals to and
                  no abstract sockets of other processes, where the kernel knows these
    seccomp       no sockets, no new processes or programs, no peeking into others, no kernel interfaces with a past

The whole process dies with its parent. Everything here binds the calling thread and what it starts later, so it must
be called while there is one thread: `enter` refuses otherwise. A kernel without landlock or seccomp leaves that wall
out; the status says so and `strongroom doctor` shows it. Sources: landlock(7), seccomp(2), prctl(2), kernel headers.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import signal
import struct
import termios
from collections.abc import Sequence
from pathlib import Path

NICE = 10
"""Steps of niceness below the service: at 10 a process weighs a tenth of it. Sixteen people's questions then take about
a third of what deliveries at full speed get without them, instead of two thirds; more steps were no better."""
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8
_TRUNCATE = 1 << 14
_WRITING = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE
# Bits of access rights that each landlock ABI knows; all of them are taken away, then reading is given back in places.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_FILE_RIGHTS_NOW = 16

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# System calls refused, by architecture. Networking, processes and programs, other processes' memory, mounts and
# namespaces, and interfaces whose history is one of holes.
_REFUSED = {
    "x86_64": {
        "socket": 41, "socketpair": 53, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_open": 434, "pidfd_getfd": 438, "mount": 165,
        "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "keyctl": 250, "add_key": 248,
        "request_key": 249, "open_by_handle_at": 304, "init_module": 175, "finit_module": 313, "kexec_load": 246,
        "personality": 135, "memfd_create": 319,
    },
    "aarch64": {
        "socket": 198, "socketpair": 199, "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270,
        "process_vm_writev": 271, "pidfd_open": 434, "pidfd_getfd": 438, "mount": 40, "umount2": 39,
        "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "bpf": 280, "perf_event_open": 241,
        "userfaultfd": 282, "io_uring_setup": 425, "keyctl": 219, "add_key": 217, "request_key": 218,
        "open_by_handle_at": 265, "init_module": 105, "finit_module": 273, "kexec_load": 104, "personality": 92,
        "memfd_create": 279,
    },
}  # fmt: skip
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_EPERM, _ENOSYS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


class SandboxError(RuntimeError):
    """A wall that every supported kernel has could not be put up: the process must not go on."""


def enter(
    *, readable: Sequence[Path], memory_bytes: int, parent: int, writable: Path | None = None, file_bytes: int = 0
) -> dict[str, str]:
    """Put up every wall this kernel has. Returns wall -> what stands.

    `parent` is the process to die with. `writable`: the one folder to write files in, each of at most `file_bytes`.
    Without it no file can grow.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise SandboxError("the sandbox must be entered before other threads start")
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above could notice
        raise SandboxError("the server is gone")
    _leave_terminal()
    stand_back(0, parent)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limits(memory_bytes, 0 if writable is None else file_bytes)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return {"limits": "on", "landlock": _landlock(readable, writable), "seccomp": _seccomp()}


def landlock_abi() -> int:
    """The landlock version of this kernel; negative when it has none."""
    abi: int = _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return abi


def allow_processor_seconds(seconds: int) -> None:
    """From now on the kernel ends this process after `seconds` more of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def stand_back(process: int, parent: int) -> None:
    """Let a process (0: this one) have the processor after `parent`, which acknowledges deliveries.

    It holds within a session everywhere, so no process of ours has a session of its own: where the kernel weighs
    sessions against each other (sched(7), "autogroup"), it would get as much as all of the service.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process, min(os.getpriority(os.PRIO_PROCESS, parent) + NICE, 19))


def _leave_terminal() -> None:
    """As `setsid` would, without a new session."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # Ctrl-C is for the service, which decides what to end
    with contextlib.suppress(OSError):  # there is none
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)


def _limits(memory_bytes: int, file_bytes: int) -> None:
    for name, limit in (
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 4096),
        (resource.RLIMIT_DATA, memory_bytes),
    ):
        hard = resource.getrlimit(name)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(name, (limit, limit))
    # A write past the limit must be an error like any other, not a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _landlock(readable: Sequence[Path], writable: Path | None) -> str:
    abi = landlock_abi()
    if abi < 1:
        return f"missing: {os.strerror(ctypes.get_errno())}"
    files = (1 << _FILE_RIGHTS.get(abi, _FILE_RIGHTS_NOW)) - 1
    network = 0b11 if abi >= 4 else 0
    scopes = 0b11 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", files, network, scopes)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for folder in readable:
            with contextlib.suppress(FileNotFoundError):
                _allow(ruleset, folder, _READ_FILE | (_READ_DIR if folder.is_dir() else 0))
        if writable is not None:
            _allow(ruleset, writable, _WRITING & files)
        _syscall(_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return f"on (abi {abi})"


def _allow(ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, descriptor)
        _syscall(_LANDLOCK_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _seccomp() -> str:
    machine = platform.machine()
    if machine not in _REFUSED:
        return f"missing: not written for {machine}"
    program = _filter(machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    try:
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)
    except SandboxError as error:
        return f"missing: {error}"
    return "on"


def _filter(machine: str) -> bytes:
    """The BPF program: loads the call's number, compares it with each refused one, allows the rest."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill = 0x7FFF0000, 0x80000000

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    def refuse(error: int) -> bytes:
        return step(answer, 0x00050000 | error)

    steps = [step(load, 4), step(equal, _AUDIT_ARCHITECTURES[machine], 1), step(answer, kill), step(load, 0)]
    if machine == "x86_64":  # the x32 calls are the same calls under other numbers
        steps += [step(at_least, 0x40000000, 0, 1), refuse(_EPERM)]
    for number in _REFUSED[machine].values():
        steps += [step(equal, number, 0, 1), refuse(_EPERM)]
    # clone3 hides its flags behind a pointer: "not there" makes the C library use clone, which may make threads only.
    steps += [step(equal, _CLONE3, 0, 1), refuse(_ENOSYS)]
    steps += [step(equal, _CLONE[machine], 0, 3), step(load, 16), step(any_bit, _CLONE_THREAD, 1), refuse(_EPERM)]
    steps.append(step(answer, allow))
    return b"".join(steps)


def _prctl(option: int, argument: int | bytes, extra: bytes | None = None) -> None:
    second = ctypes.c_ulong(argument) if isinstance(argument, int) else argument
    if _libc.prctl(ctypes.c_int(option), second, extra or ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise SandboxError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def _syscall(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise SandboxError(f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return result
