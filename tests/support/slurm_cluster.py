"""A Slurm cluster of one machine with two processors, which is this one: munge and Slurm as Debian packages them.

It has a folder, a key and ports of its own, so that it meets neither the machine's own Slurm nor another test's.
"""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from cissod_bench.launching.ranks import free_port

PROGRAMS = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])  # where Debian puts daemons
MUNGE = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
PATIENCE = 60  # seconds; on an idle machine all that is waited for here takes one or two
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={machine}(127.0.0.1)
SlurmctldPort={first_port}
SlurmdPort={second_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again waits until the credential of its last start is no longer good.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
NodeName=here NodeHostname={machine} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=here Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here, "" where it can."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(program, path=PROGRAMS) is None:
            return f"{program} is not installed (Debian: apt-get install slurm-wlm munge)"
    if find_spec("submitit") is None:
        return "the package submitit is not installed (make setup)"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started as root"


def wait_until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def shown(*words: str) -> str:
    """What one of Slurm's commands prints."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def _prepare(folder: Path) -> None:
    folder.chmod(0o755)
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir()
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o600)
    munge = pwd.getpwnam("munge")
    for path in (folder / "munge", folder / "munge" / "key"):
        os.chown(path, munge.pw_uid, munge.pw_gid)
    machine = platform.node().partition(".")[0]
    ports = {"first_port": free_port(), "second_port": free_port()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, machine=machine, **ports))


def _start(program: str, *words: str, user: str | None = None) -> None:
    """Start a daemon, which goes into the background by itself."""
    path = shutil.which(program, path=PROGRAMS)
    assert path is not None
    done = subprocess.run([path, *words], capture_output=True, text=True, user=user, group=user, check=False)
    assert done.returncode == 0, f"{program}: {done.stderr}"


@contextmanager
def slurm_cluster() -> Iterator[Path]:
    """Start the cluster, name it to Slurm's commands by SLURM_CONF, and end it; gives its folder."""
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # a socket's path may have about 100 letters
    _prepare(folder)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        _start("munged", *(f"--{name}={folder}/munge/{file}" for name, file in MUNGE.items()), user="munge")
        _start("slurmctld")
        _start("slurmd", "-N", "here")
        wait_until(lambda: "idle" in shown("sinfo", "--noheader"))
        yield folder
    finally:
        shown("scancel", "--user=root")
        with suppress(AssertionError):
            wait_until(lambda: not shown("squeue", "--noheader"), 10)
        for file in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / file).read_text()), signal.SIGTERM)
        del os.environ["SLURM_CONF"]
        time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)
