"""Whole cold processes: median wall time of 50 runs and the largest resident set. Usage: processes.py DRYFIT"""
import os
import statistics
import sys
import time

COMMANDS = {
    "check": ["check", "-q", "--depth", "20", "--device-batch-size", "16", "--gpu", "h100", "--gpus", "8"],
    "plan": ["plan", "-q", "--gpu", "RTX 4090"],
    "version": ["version"],
}


def run(command):
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        os.execv(command[0], command)
    _, _, usage = os.wait4(pid, 0)
    return (time.perf_counter() - start) * 1000, usage.ru_maxrss / 1024


for name, words in COMMANDS.items():
    samples = [run([sys.argv[1], *words]) for _ in range(50)]
    print(f"{name:10} {statistics.median(s[0] for s in samples):6.2f} ms median   {max(s[1] for s in samples):6.1f} MB resident")
