"""A Slurm cluster of two nodes on this machine, in one folder: its own munge, controller and two daemons, with eight GPUs a node that are only files."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun"]


CGROUPS = "/sys/fs/cgroup"  # slurmd ends at its start where no cgroups are, as in a chroot without /sys


def missing():
    """What is not here: programs, cgroups."""
    path = os.environ["PATH"] + ":/usr/sbin"
    return [p for p in PROGRAMS if shutil.which(p, path=path) is None] + ([] if os.path.ismount(CGROUPS) else [f"cgroups at {CGROUPS}"])


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextlib.contextmanager
def cluster(folder):
    """Yields the environment that sbatch and its friends need. folder: empty; daemons write there and nowhere else."""
    place = pathlib.Path(folder)
    place.chmod(0o755)
    for name in ("munge", "state", "spool-n1", "spool-n2"):
        (place / name).mkdir(mode=0o755)
    (place / "munge" / "key").write_bytes(os.urandom(128))
    (place / "munge" / "key").chmod(0o400)
    host = socket.gethostname().split(".")[0]
    control, first, second = free_ports(3)
    (place / "slurm.conf").write_text(f"""ClusterName=dryfit
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
SlurmctldPort={control}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=64 Gres=gpu:8 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=64 Gres=gpu:8 State=UNKNOWN
PartitionName=all Nodes=n[1-2] Default=YES State=UP
""")
    for gpu in range(8):
        (place / f"gpu{gpu}").touch()
    (place / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={place}/gpu[0-7]\n")
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin", "SLURM_CONF": str(place / "slurm.conf")}
    daemons = []

    def start(*words):
        daemons.append(subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=open(place / "errors", "a")))

    try:
        munge = place / "munge"
        start("munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed")
        for _ in range(100):
            if (munge / "socket").exists():
                break
            time.sleep(0.1)
        start("slurmctld", "-D")
        time.sleep(1)
        start("slurmd", "-D", "-N", "n1")
        start("slurmd", "-D", "-N", "n2")
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()


def run(text, environment, folder, seconds=120):
    """Submits a batch script from `folder` and waits for it. Returns (what Slurm says of the job, the job's log); the daemons' last words too where it did not end."""
    script = pathlib.Path(folder) / "job.sbatch"
    script.write_text(text)
    for _ in range(60):  # until the nodes have registered
        done = subprocess.run(["sbatch", "--parsable", script], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            break
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip().split(";")[0]
    end = time.time() + seconds
    while time.time() < end:
        state = subprocess.run(["scontrol", "--oneliner", "show", "job", job], env=environment, capture_output=True, text=True).stdout
        if "JobState=COMPLETED" in state or "JobState=FAILED" in state or "JobState=TIMEOUT" in state:
            break
        time.sleep(0.3)
    else:
        state += (pathlib.Path(environment["SLURM_CONF"]).parent / "errors").read_text()[-4000:]
    logs = list(pathlib.Path(folder).glob(f"*-{job}.log"))
    return state, logs[0].read_text() if logs else ""
