"""The command line as a user meets it: what it prints, its exit status, its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.cli import command_names, main


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxprune", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Calls a command in this process: (exit status, standard output, standard error)."""

    def invoke(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onnxprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        captured = capsys.readouterr()
        return int(exit_info.value.code or 0), captured.out, captured.err

    return invoke


def test_json_is_one_document_on_standard_output_and_nothing_else(mlp: Path) -> None:
    done = run("inspect", mlp, "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert [w["name"] for w in report["weights"]] == ["fc0.weight", "fc1.weight"]
    assert {s["name"] for s in report["skipped"]} == {"fc0.bias", "fc1.bias"}
    assert "quality" not in report


def test_prune_pack_encode_decode_estimate_verify(call, mlp: Path, tmp_path: Path) -> None:
    pruned, packed = tmp_path / "pruned.onnx", tmp_path / "packed.onnx"
    blob, arrays = tmp_path / "weights.swb", tmp_path / "weights.npz"
    status, out, _ = call("prune", mlp, "-o", pruned, "--sparsity", "0.75", "--json")
    assert status == 0
    assert json.loads(out)["totals"]["nonzeros"] == 64
    assert call("pack", pruned, "-o", packed)[0] == 0
    assert call("encode", pruned, "-o", blob)[0] == 0
    assert call("decode", blob, "-o", arrays)[0] == 0
    initializers = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(pruned).graph.initializer
    }
    with np.load(arrays) as decoded:
        for name in decoded.files:
            assert decoded[name].tobytes() == initializers[name].tobytes()
    by_model = json.loads(call("estimate", pruned, "--json")[1])
    by_blob = json.loads(call("estimate", blob, "--json")[1])
    assert by_model["totals"]["fetch_cycles"] == by_blob["totals"]["fetch_cycles"] > 0
    assert by_model["memory"]["name"] == "ddr4-2400"
    assert call("verify", pruned, packed, "--rtol", "0", "--atol", "0")[0] == 0
    status, out, _ = call("verify", mlp, pruned)
    assert status == 1
    assert "FAILED" in out


def test_estimate_compares_memories_encodings_and_decoders(call, mlp: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    status, out, error = call(
        *("estimate", mlp, "--memory", "ddr4-2400,sram-rp2040", "--encoding", "bitmask,rice"),
        *("--decoder-lanes", "1,4", "--chunk", "16", "-o", points),
    )
    assert (status, error) == (0, "")
    for text in ("ddr4-2400, dense", "sram-rp2040, dense", "lanes", "stall", "fastest: "):
        assert text in out
    assert len(points.read_text(encoding="utf-8").splitlines()) == 1 + 8 * 3
    status, out, _ = call("estimate", mlp, "--decoder-lanes", "2", "--encoding", "rice")
    assert status == 0
    assert "fc0.weight" in out
    assert "of peak" in out
    for wrong in (("--decoder-lanes", "1,x"), ("--memory", "ddr9"), ("-o", tmp_path / "p.txt")):
        status, out, error = call("estimate", mlp, *wrong)
        assert (status, out) == (2, "")
        assert error.count("\n") == 1
    assert not (tmp_path / "p.txt").exists()


def test_global_allocation_differs_from_uniform_at_the_same_total(
    call, mlp: Path, tmp_path: Path
) -> None:
    reports = [
        json.loads(
            call(
                "prune",
                mlp,
                "-o",
                tmp_path / "o.onnx",
                "--sparsity",
                "0.5",
                "--allocation",
                a,
                "--json",
            )[1]
        )
        for a in ("uniform", "global")
    ]
    assert [r["totals"]["nonzeros"] for r in reports] == [128, 128]
    assert [w["nonzeros"] for w in reports[0]["weights"]] == [96, 32]
    assert [w["nonzeros"] for w in reports[1]["weights"]] != [96, 32]


def test_nothing_to_prune_is_exit_1_with_reasons(call, tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:])),
        tmp_path / "m.onnx",
    )
    np.savez(tmp_path / "d.npz", x=np.zeros((20, 1), np.float32))
    for command in (
        ["inspect", tmp_path / "m.onnx"],
        ["compress", tmp_path / "m.onnx", "--data", tmp_path / "d.npz", "-o", tmp_path / "run"],
    ):
        status, out, _ = call(*command)
        assert status == 1
        assert "no weight can be pruned: the model holds no constants" in out
    assert json.loads((tmp_path / "run" / "report.json").read_text())["weights"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "missing.onnx"], "there is no file 'missing.onnx'"),
        (["inspect", "{mlp}", "--bogus"], "No such option"),
        (["inspect"], "Missing argument 'model'"),
        (["frobnicate"], "No such command 'frobnicate'; see `onnxprune --help`"),
        (["prune", "{mlp}", "-o", "{tmp}/o.onnx"], "give either a sparsity"),
        (
            ["prune", "{mlp}", "-o", "{tmp}/o.onnx", "--sparsity", "1.5"],
            "between 0 and 1, found 1.5",
        ),
        (
            ["prune", "{mlp}", "-o", "{tmp}/o.onnx", "--sparsity", "-0.1"],
            "between 0 and 1, found -0.1",
        ),
        (
            ["prune", "{mlp}", "-o", "{tmp}/o.onnx", "--sparsity", "nan"],
            "between 0 and 1, found nan",
        ),
        (
            ["prune", "{mlp}", "-o", "{tmp}/no/o.onnx", "--sparsity", "0.5"],
            "does not exist; create it first",
        ),
        (["prune", "{mlp}", "-o", "{tmp}", "--sparsity", "0.5"], "it is a folder; name a file"),
        (
            [
                "prune",
                "{mlp}",
                "-o",
                "{tmp}/o.onnx",
                "--sparsity",
                "0.5",
                "--nodes-to-exclude",
                "/fc0/Gem",
            ],
            "did you mean '/fc0/Gemm'",
        ),
        (
            ["encode", "{mlp}", "-o", "{tmp}/o.swb", "--encoding", "zip"],
            "no encoding 'zip'; known are auto",
        ),
        (["estimate", "{mlp}", "--memory", "tape"], "no memory 'tape'; known are"),
        (["decode", "{mlp}", "-o", "{tmp}/o.npz"], "not a weight blob"),
        (
            ["compress", "{mlp}", "--data", "nothing.npz", "-o", "{tmp}/run"],
            "there is no file 'nothing.npz'",
        ),
        (
            ["compress", "{mlp}", "--data", "{data}", "-o", "{tmp}/no/run"],
            "does not exist; create it first",
        ),
        (
            ["compress", "{mlp}", "--data", "{data}", "-o", "{tmp}/run", "--target", "10y"],
            "write 10x",
        ),
        (
            ["compress", "{mlp}", "--data", "{data}", "-o", "{tmp}/run", "--max-drop", "7"],
            "max_drop",
        ),
        (
            ["compress", "{mlp}", "--data", "{data}", "-o", "{tmp}/run", "--metric", "magic"],
            "unknown metric 'magic'",
        ),
        (
            ["compress", "{mlp}", "--data", "{data}", "-o", "{tmp}/run", "--trials", "0"],
            "search.trials",
        ),
        (["compress", "{mlp}", "--data", "{data}", "-o", "{mlp}"], "it is a file; name a folder"),
        (["verify", "{mlp}", "missing.onnx"], "there is no file 'missing.onnx'"),
    ],
)
def test_bad_requests_are_one_sentence_and_leave_nothing(
    call, mlp: Path, mlp_data: Path, tmp_path: Path, arguments: list[str], message: str
):
    before = sorted(p.name for p in tmp_path.rglob("*"))
    filled = [a.format(mlp=mlp, data=mlp_data, tmp=tmp_path) for a in arguments]
    status, out, err = call(*filled)
    assert status == 2
    assert out == ""
    assert message in err
    assert err.startswith("onnxprune: ")
    assert err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_models_of_another_interface_are_not_compared(call, mlp: Path, tmp_path: Path) -> None:
    other = onnx.load(mlp)
    other.graph.input[0].name = "image"
    other.graph.node[0].input[0] = "image"
    onnx.save(other, tmp_path / "other.onnx")
    status, _, err = call("verify", mlp, tmp_path / "other.onnx")
    assert status == 2
    assert "differ in their inputs or outputs" in err


def test_every_command_has_help_with_an_example(call) -> None:
    names = command_names()
    assert len(names) > 10
    for name in names:
        status, out, _ = call(name, "--help")
        assert status == 0
        assert f"Example: onnxprune {name}" in " ".join(out.split())


def test_version(call) -> None:
    assert call("--version")[:2] == (0, "0.1.0\n")
