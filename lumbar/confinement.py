"""Takes from this process what reading untrusted bytes never needs, by Linux's own means.

It can then open no socket, run no program, write, make or remove no file, and neither look into
another process, whose environment may hold passwords, nor send it a signal. The means need no
privilege and hold within containers, for root and others alike, where namespaces are often refused:
seccomp (Linux 3.5) and Landlock (Linux 5.13, signals 6.12). They are a few system calls; the
packages that wrap them are no longer kept, or need a library of the system.
"""

import ctypes
import errno
import platform
from collections.abc import Sequence

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_FILTER = 2  # SECCOMP_MODE_FILTER

# linux/audit.h; and the number of socket(2), by machine
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_IO_URING_SETUP = 425  # it could open sockets, too
_X32 = 0x40000000  # system calls of another numbering begin here

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EACCES  # linux/seccomp.h
_NUMBER_AT, _MACHINE_AT = 0, 4  # in struct seccomp_data

_CAPABILITIES_VERSION = 0x20080522  # linux/capability.h
_READING = 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on all machines
# linux/landlock.h: the rights known to each version of the interface, but for reading
_WRITING = {1: 0b1_1111_1111_0011, 2: 1 << 13, 3: 1 << 14}
_SCOPES = 0b11  # abstract sockets, signals: version 6


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("ports", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


def confine(*, network: bool) -> tuple[str, ...]:
    """Confines the calling thread and all that it starts, for good; files can still be read.

    ``network``: whether it may open sockets. Returns what this system could not take away.
    """
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # the means below require it
    done = {"capabilities": _drop_capabilities(), "files": _forbid_writing()}
    if not network:
        done["network"] = _forbid_sockets()
    return tuple(name for name, taken in done.items() if not taken)


def _drop_capabilities() -> bool:
    """Leaves root those by which it reads others' files; more would open others' memory to it."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, of 32 capabilities each
    if _LIBC.capget(header, sets) != 0:
        return False
    kept = (ctypes.c_uint32 * 6)(sets[0] & _READING, sets[1] & _READING)
    return bool(_LIBC.capset(header, kept) == 0)


def _forbid_writing() -> bool:
    version = _LIBC.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    files = sum(rights for since, rights in _WRITING.items() if since <= version)
    ruleset = _Ruleset(files, 0, _SCOPES if version >= 6 else 0)
    descriptor = _LIBC.syscall(
        _CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0
    )
    return bool(descriptor >= 0 and _LIBC.syscall(_RESTRICT_SELF, descriptor, 0) == 0)


def _forbid_sockets() -> bool:
    machine = platform.machine()
    if machine not in _MACHINES:
        return False
    architecture, socket = _MACHINES[machine]
    program = _program(
        [
            (_LOAD, 0, 0, _MACHINE_AT),
            (_EQUAL, 1, 0, architecture),
            (_RETURN, 0, 0, _KILL),
            (_LOAD, 0, 0, _NUMBER_AT),
            (_AT_LEAST, 3, 0, _X32),
            (_EQUAL, 3, 0, socket),
            (_EQUAL, 2, 0, _IO_URING_SETUP),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _KILL),
            (_RETURN, 0, 0, _REFUSE),
        ]
    )
    return bool(_LIBC.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)


def _program(instructions: Sequence[tuple[int, int, int, int]]) -> _Program:
    filter_ = (_Instruction * len(instructions))(*(_Instruction(*one) for one in instructions))
    return _Program(len(instructions), filter_)
