"""The machine a figure was measured on, and what a process takes of its memory."""

from __future__ import annotations

import os
import platform
import resource
from importlib import metadata
from pathlib import Path
from typing import Any

from speckv_pynq import spec
from speckv_pynq.device import library
from speckv_pynq.errors import SpeckvError


def version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version("speckv-pynq")
    except metadata.PackageNotFoundError:
        return "0+not.installed"


def describe() -> dict[str, Any]:
    """Processor, cores this process may use, memory, interpreter and the native library's build, for a report."""
    return {
        "speckv": version(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "kernels": _build_info(),
        "format_version": spec.FORMAT_VERSION,
        "abi_id": f"{spec.ABI_ID:#018x}",
    }


def one_line(machine: dict[str, Any]) -> str:
    """The description in a line under a table."""
    return f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}; {machine['kernels']}"


def cpu_model() -> str:
    """As the kernel names it; on arm64 its part number, which is all there is."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    if "model name" in facts:
        return facts["model name"]
    return f"implementer {facts.get('CPU implementer', '?')} part {facts.get('CPU part', '?')}"


def peak_rss_bytes() -> int:
    """The most memory this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pss_bytes() -> int:
    """Memory of this process now; a page shared by n processes counts an n-th."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    raise SpeckvError("/proc/self/smaps_rollup has no Pss line: Linux 4.14 or later is needed")


def _build_info() -> str:
    try:
        return library.load().build_info
    except SpeckvError as error:
        return f"not usable: {error}"
