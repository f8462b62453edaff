"""`rlvr doctor` tells working, missing and broken apart."""

from __future__ import annotations

import sys

import pytest

from rlvr import doctor


def test_an_import_that_works_is_ok_and_names_its_version():
    check = doctor.check_import("rich", "import rich", remedy="pip install rich")
    assert (check.status, check.remedy) == ("ok", "")
    assert check.detail.startswith("rich ")


def test_a_distribution_that_is_not_installed_is_missing_and_has_a_remedy():
    check = doctor.check_import("no-such-thing", "import no_such_thing", remedy="pip install it")
    assert (check.status, check.detail, check.remedy) == ("missing", "not installed", "pip install it")


def test_an_installed_package_that_fails_to_import_is_broken_and_shows_the_error():
    check = doctor.check_import("rich", "raise RuntimeError('operator torchvision::nms does not exist')", remedy="uninstall it")
    assert check.status == "broken"
    assert "operator torchvision::nms does not exist" in check.detail


def test_an_interpreter_that_dies_is_broken_not_a_crash_of_the_doctor():
    assert doctor.try_code("import os; os.abort()")[0] == "broken"


def test_an_import_that_hangs_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "IMPORT_DEADLINE_SECONDS", 1)
    status, detail = doctor.try_code("import time; time.sleep(60)")
    assert status == "broken" and "1 s" in detail


def test_a_docker_host_where_nothing_listens_is_missing(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")  # The discard port: nothing listens there.
    check = doctor.check_docker()
    assert check.status == "missing"
    assert "DOCKER_HOST" in check.remedy


def test_the_verifiers_package_is_rlvrs_own():
    assert doctor.check_our_verifiers().status == "ok"


def test_another_verifiers_package_earlier_on_the_path_is_broken(tmp_path, monkeypatch):
    (tmp_path / "verifiers").mkdir()
    (tmp_path / "verifiers" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name == "verifiers"]:
        monkeypatch.delitem(sys.modules, name)
    check = doctor.check_our_verifiers()
    assert check.status == "broken"
    assert str(tmp_path) in check.detail


def test_a_full_disk_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 1e9)
    assert doctor.check_disk(tmp_path).status == "broken"
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 0.0)
    assert doctor.check_disk(tmp_path).status == "ok"


@pytest.mark.parametrize(("threads", "status"), [("1", "ok"), ("100000", "broken")])
def test_more_threads_than_cores_is_broken(threads, status, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert doctor.check_threads().status == status
