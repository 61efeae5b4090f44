"""What the driver says: bytes used on the device and by this process, driver version. NVML when nvidia-ml-py is there, else nvidia-smi.

Needs no torch. Everything is None where nothing can be asked.
"""
import os
import subprocess


def _nvml():
    try:
        import pynvml
        pynvml.nvmlInit()
        return pynvml
    except Exception:  # no package, no driver, no permission: nvidia-smi may still answer
        return None


def _smi(query, what="gpu"):
    try:
        done = subprocess.run(["nvidia-smi", f"--query-{what}={query}", "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=30, check=True)
        return [[field.strip() for field in line.split(",")] for line in done.stdout.strip().splitlines()]
    except (OSError, subprocess.SubprocessError):
        return []


def device_used(index=0):
    """Bytes used on the device by everyone, the driver's own reserve not counted."""
    nvml = _nvml()
    if nvml:
        return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).used)
    rows = _smi("memory.used")
    return int(rows[index][0]) * 2**20 if len(rows) > index else None


def process_used(index=0, pid=None):
    """Bytes of one process on the device; None where the driver does not tell (containers hide process ids)."""
    pid = pid or os.getpid()
    nvml = _nvml()
    if nvml:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == pid and process.usedGpuMemory:
                return int(process.usedGpuMemory)
        return None
    for row in _smi("pid,used_memory", "compute-apps"):
        if row[0] == str(pid) and row[1].isdigit():
            return int(row[1]) * 2**20
    return None


def describe():
    """Name, memory, driver of the first device, or None."""
    rows = _smi("name,memory.total,driver_version")
    if not rows:
        return None
    name, total, driver = rows[0]
    return {"gpu": name, "gpu_memory_mib": total, "driver": driver, "count": len(rows)}
