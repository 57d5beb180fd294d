from __future__ import annotations

from pathlib import Path

import pytest

from modelport_backend_cpu.host import Host

CPUINFO = "processor\t: 0\nmodel name\t: Fast Chip 9000\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\nprocessor\t: 1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO)
    return tmp_path


def test_processor_is_described_from_cpuinfo(root: Path) -> None:
    host = Host(root)
    assert host.model_name() == "Fast Chip 9000"
    assert host.flags() == {"fpu", "avx2", "avx512f", "avx512_bf16"}
    assert host.has_fast_bfloat16(host.flags())
    assert not host.has_fast_bfloat16(frozenset({"avx2", "avx512f"}))


def test_arm_lists_features_instead_of_flags(root: Path) -> None:
    (root / "proc/cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd bf16 sve\n")
    host = Host(root)
    assert "sve" in host.flags()
    assert host.has_fast_bfloat16(host.flags())
    assert host.model_name()


def test_system_without_proc_still_has_cores_memory_and_a_name(tmp_path: Path) -> None:
    host = Host(tmp_path)
    total, free = host.memory()
    assert host.cores() >= 1
    assert total >= free > 0
    assert host.flags() == frozenset()
    assert host.model_name()


def test_container_quota_cuts_cores(root: Path) -> None:
    (root / "sys/fs/cgroup/cpu.max").write_text("100000 100000\n")
    assert Host(root).cores() == 1
    (root / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    assert Host(root).cores() == 1
    (root / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
    assert Host(root).cores() >= 1


def test_container_limit_cuts_memory_and_file_caches_count_as_free(root: Path) -> None:
    cgroup = root / "sys/fs/cgroup"
    (cgroup / "memory.max").write_text("1000000\n")
    (cgroup / "memory.current").write_text("600000\n")
    assert Host(root).memory() == (1_000_000, 400_000)
    (cgroup / "memory.stat").write_text("anon 300000\ninactive_file 250000\n")
    assert Host(root).memory() == (1_000_000, 650_000)
    (cgroup / "memory.max").write_text("max\n")
    assert Host(root).memory()[0] > 1_000_000


def test_version_of_what_is_not_installed_says_so(root: Path) -> None:
    assert Host(root).versions("no-such-distribution-here") == {"no-such-distribution-here": "not installed"}
