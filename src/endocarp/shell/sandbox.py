"""What a process gives up before it touches anything of a stranger, in one fixed order, with an honest report.

1. limits         no core dumps, as many descriptors as the user may have; no new privileges of any kind by exec
2. not dumpable   no ptrace, no /proc/PID/mem for others of the same user, from now on: who has it open, keeps it
3. Landlock       no path but those named; from ABI 4 on (Linux 6.7) no TCP, from ABI 6 on (6.12) no signals and no
                  abstract sockets to the outside; on older kernels only the filter keeps from these
4. seccomp        the system calls of the profile; what only an intruder would call kills the process

Everything that will be needed is imported and opened before: the filter forbids `open`. Where the kernel or
libseccomp lacks a step, the process goes on without it and says so; `--require-sandbox` makes that a refusal.
All but the limits holds for the calling thread and those that it starts, so it is entered before any other starts.
"""

import contextlib
import ctypes
import errno
import os
import resource
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endocarp.errors import Refused
from endocarp.wire.control import Seccomp

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_CLONE_THREAD = 0x10000

# Landlock: how many rights of each kind an ABI knows (linux/landlock.h); index = ABI.
_FS_RIGHTS = (0, 13, 14, 15, 15, 16, 16, 16)
_NET_RIGHTS = (0, 0, 0, 0, 2, 2, 2, 2)
_SCOPES = (0, 0, 0, 0, 0, 0, 2, 2)
# Rights on what stands below a directory: read and write files, list, remove, make regular files, truncate.
_BELOW_DIRECTORY = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 5) | (1 << 8)
_TRUNCATE = 1 << 14
_DIRECTORY = "make it again, or take another state directory with --state"

# What every process needs once it runs: its own memory, threads, descriptors that it has, time, entropy, the end.
_RUNNING = """
    brk clock_gettime clock_nanosleep close dup epoll_ctl epoll_wait epoll_pwait exit exit_group fstat futex
    getpid gettid getrandom gettimeofday getuid geteuid lseek madvise membarrier mlock mmap mprotect mremap
    munmap nanosleep newfstatat poll ppoll pread64 read restart_syscall rseq rt_sigaction rt_sigprocmask
    rt_sigreturn sched_getaffinity sched_yield set_robust_list sigaltstack uname wait4 write writev
""".split()
_TALKING = "getpeername getsockname getsockopt recvfrom recvmsg sendmsg sendto setsockopt shutdown".split()
_KEEPING = "ftruncate memfd_create memfd_secret readlink".split()  # more memory for secrets: `shell.memory`
_STORING = "fdatasync fsync ftruncate open openat pwrite64 rename renameat renameat2 unlink unlinkat".split()
_IOCTLS = (0x5401, 0x5421, 0x5450, 0x5451)
"""TCGETS, FIONBIO, FIONCLEX, FIOCLEX (asm-generic/ioctls.h): what the interpreter itself asks of a descriptor."""
_FCNTLS = (0, 1, 2, 3, 4, 1030, 1033, 1034)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS (fcntl.h, linux/fcntl.h)."""
_NEVER = """
    bpf delete_module execve execveat finit_module fork init_module io_uring_setup kexec_load keyctl mount
    perf_event_open pivot_root process_vm_readv process_vm_writev ptrace setns umount2 unshare userfaultfd vfork
""".split()


@dataclass(frozen=True)
class Profile:
    """What one kind of process may do: the system calls beyond the common ones, and the directories it may write."""

    name: str
    calls: tuple[str, ...] = ()
    directories: tuple[Path, ...] = ()
    starts_processes: bool = False
    """Neither Landlock nor seccomp: whoever starts others cannot give up what they will need."""


BOX = Profile("box", starts_processes=True)
ROT = Profile("rot", ("accept4", *_KEEPING))
FRONT = Profile("front", ("accept4", "socketpair"))


def vault_profile(store: Path) -> Profile:
    """Return the profile of a vault whose store lies in this directory: the only place that it may touch."""
    return Profile("vault", (*_KEEPING, *_STORING), (store,))


@dataclass(frozen=True)
class Report:
    """What a process really got. `notes` says why where a step is missing; empty when all of it holds."""

    no_new_privileges: bool
    not_dumpable: bool
    landlock_abi: int
    seccomp: Seccomp
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every step of the sandbox holds, Landlock as far as this kernel has it."""
        filtered = self.landlock_abi > 0 and self.seccomp is Seccomp.FILTER
        return self.no_new_privileges and self.not_dumpable and filtered and not self.notes


def enter(profile: Profile, *, required: bool = False) -> Report:
    """Give up everything that `profile` does not name; return what was got.

    Raises Refused `sandbox.incomplete` where `required` and a step is missing.
    """
    notes = _other_threads()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    basic = (
        _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1, notes),
        _prctl("not dumpable", _PR_SET_DUMPABLE, 0, notes),
    )
    if profile.starts_processes:
        notes.append("starts the others: no Landlock, no seccomp")
        report = Report(*basic, 0, Seccomp.OFF, tuple(notes))
        holds = all(basic)
    else:
        library = _library()
        _load_unwinder()
        abi = _landlock(profile.directories, notes)
        seccomp = _seccomp(library, profile.calls, notes)
        report = Report(*basic, abi, seccomp, tuple(notes))
        holds = report.complete
    if required and not holds:
        raise Refused(
            "sandbox.incomplete",
            f"the sandbox of {profile.name} lacks: {'; '.join(report.notes)}",
            "install libseccomp2, run a kernel with Landlock, or start without --require-sandbox",
        )
    return report


def _other_threads() -> list[str]:
    """Return a note where threads run that no step will reach."""
    others = len(list(Path("/proc/self/task").iterdir())) - 1
    return [f"threads that were started before, and stay outside: {others}"] if others else []


def _prctl(name: str, option: int, value: int, notes: list[str]) -> bool:
    if _libc.prctl(option, value, 0, 0, 0) == 0:
        return True
    notes.append(f"{name} did not take hold: {_last_error()}")
    return False


# --- Landlock -------------------------------------------------------------------------------------------------


def _landlock(directories: Iterable[Path], notes: list[str]) -> int:
    """Restrict the process to `directories`; return the ABI that was used, 0 where there is none.

    Raises Refused `sandbox.landlock` where a directory is not there.
    """
    abi = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    if abi <= 0:
        notes.append("this kernel has no Landlock")
        return 0
    known = min(abi, len(_FS_RIGHTS) - 1)
    rights = (1 << _FS_RIGHTS[known]) - 1
    attribute = struct.pack("<QQQ", rights, (1 << _NET_RIGHTS[known]) - 1, (1 << _SCOPES[known]) - 1)
    # The attribute grew over time: a kernel takes only the part it knows.
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attribute[:size], size, 0)
    if ruleset < 0:
        notes.append(f"Landlock made no ruleset: {_last_error()}")
        return 0
    try:
        for directory in directories:
            _allow_below(ruleset, directory, rights)
        if _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
            notes.append(f"Landlock did not take hold: {_last_error()}")
            return 0
    finally:
        os.close(ruleset)
    return int(known)


def _allow_below(ruleset: int, directory: Path, rights: int) -> None:
    try:
        fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise Refused("sandbox.landlock", f"{directory}: {error.strerror}", _DIRECTORY) from None
    try:
        rule = struct.pack("<Qi", (_BELOW_DIRECTORY | _TRUNCATE) & rights, fd)
        if _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0) != 0:
            raise Refused("sandbox.landlock", f"no rule for {directory}: {_last_error()}", _DIRECTORY)
    finally:
        os.close(fd)


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())


# --- seccomp --------------------------------------------------------------------------------------------------


def _seccomp(pyseccomp: Any, calls: Sequence[str], notes: list[str]) -> Seccomp:
    """Load the filter; a call that is not on the list fails with EPERM, one that only an intruder makes kills."""
    if pyseccomp is None:
        notes.append("libseccomp is not installed (apt-get install libseccomp2)")
        return Seccomp.OFF
    try:
        table = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
        for name in (*_RUNNING, *_TALKING, *calls):
            table.add_rule(pyseccomp.ALLOW, name)
        for number in _IOCTLS:  # not TIOCSTI, which types on the terminal of whoever started the server
            table.add_rule(pyseccomp.ALLOW, "ioctl", pyseccomp.Arg(1, pyseccomp.EQ, number))
        # Nor signals to other processes of the same user, sent outright or by a descriptor with an owner (F_SETOWN):
        # Landlock knows of them only from Linux 6.12 on.
        for number in _FCNTLS:
            table.add_rule(pyseccomp.ALLOW, "fcntl", pyseccomp.Arg(1, pyseccomp.EQ, number))
        table.add_rule(pyseccomp.ALLOW, "tgkill", pyseccomp.Arg(0, pyseccomp.EQ, os.getpid()))
        for name in _NEVER:
            table.add_rule(pyseccomp.KILL_PROCESS, name)
        # Threads, but no processes. The flags of clone3 lie in memory where a filter cannot see them: it is said
        # to be absent, and the C library takes clone instead.
        table.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
        table.add_rule(
            pyseccomp.ALLOW, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD)
        )
        table.load()
    except (OSError, ValueError) as error:
        notes.append(f"seccomp did not take hold: {error}")
        return Seccomp.OFF
    return Seccomp.FILTER


def _library() -> Any:
    """Return pyseccomp, or None where libseccomp is not installed.

    It is imported late, as it takes 30 ms to find libseccomp and not every process that knows this module filters; but
    before Landlock, which shuts it out.
    """
    try:
        import pyseccomp  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError):
        return None
    return pyseccomp


def _load_unwinder() -> None:
    """Load what the C library opens when the first thread is ended from outside: without it, that aborts the process."""
    with contextlib.suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")
