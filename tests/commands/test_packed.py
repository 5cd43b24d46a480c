"""Every command that takes a store also takes a packed file."""

import json
from pathlib import Path

import pytest

from tests.jobs import QUICK, SCENES, run_cli
from tests.jrdb_folder import write_folder


def test_info_verify_extract_train_and_evaluate_on_a_packed_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "data", SCENES, frames=4, people=8)
    assert run_cli("extract", "--data_path", data, *QUICK, "--store", "a.store") == 0
    assert run_cli("store", "pack", "a.store", "a.h5") == 0
    Path("a.store").rename("elsewhere")
    assert run_cli("store", "info", "a.h5") == 0
    assert run_cli("store", "verify", "a.h5") == 0
    capsys.readouterr()
    assert run_cli("extract", "--data_path", data, *QUICK, "--store", "a.h5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames_decoded"] == 0
    head = (*QUICK, "--store", "a.h5", "--freeze_backbone", "--epochs", "1", "--visual_dim", "8")
    assert run_cli("train", "--data_path", data, *head, "--checkpoint_dir", "one") == 0
    assert run_cli("train", "--data_path", "nowhere", *head, "--checkpoint_dir", "two") == 0
    assert run_cli("evaluate", "one", "--store", "a.h5", "--device", "cpu") == 0
    assert run_cli("store", "repair", "a.h5", "--data_path", data) == 4
    assert "pack it again" in capsys.readouterr().err
    raw = bytearray(Path("a.h5").read_bytes())
    raw[-9] ^= 1
    Path("a.h5").write_bytes(raw)
    assert run_cli("store", "verify", "a.h5") == 4
    assert run_cli("evaluate", "one", "--store", "a.h5", "--device", "cpu") == 4
