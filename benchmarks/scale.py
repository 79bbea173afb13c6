"""Models larger than 2 GB: memory and time of each command, beside onnx-ir's own load and save.

    python benchmarks/scale.py [--gigabytes 4] [--repeats 3] [--folder DIR]

Makes a model of that size with external data, then runs each command in a process of its own and
watches its memory: anonymous memory is what the process has asked for; mapped pages of files are
counted apart, for the system takes them back when it needs them. Limits: anonymous memory at most
twice the largest tensor and 500 MB, and for pruning with uniform allocation a time of at most 2.5
times that of loading and saving the same model with onnx-ir, all in this one run. Seconds are the
best of the repeats; CPU seconds, those of all threads, tell the work apart from busy neighbours.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import record
from onnx import TensorProto, helper

WIDTH = 4096
TENSOR_BYTES = WIDTH * WIDTH * 4
LARGEST_BYTES = 8 * TENSOR_BYTES
LIMIT_BYTES = 2 * LARGEST_BYTES + 500 * 10**6
TIME_LIMIT = 2.5

COMMANDS = {
    "onnx-ir load and save": (
        "ir.save(ir.load({model!r}), {out!r}, external_data={name!r} + '.data')"
    ),
    "prune, uniform": "api.prune({model!r}, {out!r}, sparsity=0.9, allocation='uniform')",
    "prune, global": "api.prune({model!r}, {out!r}, sparsity=0.9, allocation='global')",
    "encode": "api.encode({pruned!r}, {out!r})",
    "pack": "api.pack({pruned!r}, {out!r})",
}
IMPORTS = "import time; import onnx_ir as ir; from onnxprune import api"


def make_model(path: Path, gigabytes: float) -> int:
    """A chain of MatMuls with one weight of 512 MiB and as many of 64 MiB as it takes; its bytes."""
    rng = np.random.default_rng(0)
    count = max(1, round((gigabytes * 1e9 - LARGEST_BYTES) / TENSOR_BYTES))
    shapes = [(WIDTH, WIDTH)] * count + [(WIDTH, 8 * WIDTH)]
    nodes, initializers, offset, previous = [], [], 0, "x"
    with path.with_name(path.name + ".data").open("wb") as data:
        for number, shape in enumerate(shapes):
            tensor = TensorProto(
                name=f"w{number}",
                data_type=TensorProto.FLOAT,
                dims=shape,
                data_location=TensorProto.EXTERNAL,
            )
            for _ in range(shape[1] // WIDTH):
                block = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32)
                data.write(block * np.float32(1 + number / count))
            size = shape[0] * shape[1] * 4
            entries = {"location": path.name + ".data", "offset": offset, "length": size}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            offset += size
            initializers.append(tensor)
            output = "y" if number == len(shapes) - 1 else f"h{number}"
            nodes.append(
                helper.make_node("MatMul", [previous, tensor.name], [output], f"/{number}")
            )
            previous = output
    graph = helper.make_graph(
        nodes,
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8 * WIDTH])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    return offset


def memory_of(pid: int) -> dict[str, int]:
    """Anonymous and mapped file memory of a process now, in bytes."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in {"RssAnon", "RssFile", "RssShmem"}:
            found[name] = int(rest.split()[0]) * 1024
    return found


def measure(code: str) -> dict[str, Any]:
    """Run code in a process of its own; its seconds, imports left out, and its most memory."""
    clocks = "time.perf_counter(), time.process_time()"
    timed = f"{IMPORTS}; s, c = {clocks}; {code}; e, d = {clocks}; print(e - s, d - c)"
    process = subprocess.Popen(
        [sys.executable, "-c", timed], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    anonymous = mapped = 0
    while process.poll() is None:
        try:
            now = memory_of(process.pid)
        except OSError:
            break
        anonymous = max(anonymous, now.get("RssAnon", 0))
        mapped = max(mapped, now.get("RssFile", 0) + now.get("RssShmem", 0))
        time.sleep(0.002)
    out, error = process.communicate()
    if process.returncode:
        last = error.strip().splitlines()[-1] if error.strip() else f"killed ({process.returncode})"
        return {"error": last, "anonymous_bytes": anonymous, "mapped_bytes": mapped}
    return {
        "seconds": float(out.split()[-2]),
        "cpu_seconds": float(out.split()[-1]),
        "anonymous_bytes": anonymous,
        "mapped_bytes": mapped,
    }


def clean(path: Path) -> None:
    """Remove a model and its data."""
    for file in path.parent.glob(path.name + "*"):
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink()


def run(folder: Path, gigabytes: float, repeats: int, names: list[str]) -> dict[str, Any]:
    """Measure the commands, interleaved; the best time and the most memory of each."""
    model, pruned, out = folder / "model.onnx", folder / "pruned.onnx", folder / "out.onnx"
    size = make_model(model, gigabytes)
    places = {"model": str(model), "pruned": str(pruned), "out": str(out), "name": out.name}
    if {"encode", "pack"} & set(names):
        measure(COMMANDS["prune, uniform"].format(**{**places, "out": str(pruned)}))
    results: dict[str, dict[str, Any]] = {}
    for _ in range(repeats):
        for name in names:
            clean(out)
            found = measure(COMMANDS[name].format(**places))
            kept = results.setdefault(name, found)
            if "error" not in found and "error" not in kept:
                for key in ("anonymous_bytes", "mapped_bytes"):
                    kept[key] = max(kept[key], found[key])
                for key in ("seconds", "cpu_seconds"):
                    kept[key] = min(kept[key], found[key])
    clean(out)
    return {"model_bytes": size, "largest_tensor_bytes": LARGEST_BYTES, "commands": results}


def report(result: dict[str, Any]) -> bool:
    """Print the table; True when every limit holds."""
    size, commands = result["model_bytes"], result["commands"]
    base = commands.get("onnx-ir load and save", {}).get("seconds")
    print(
        f"model {size / 1e9:.2f} GB, largest tensor {result['largest_tensor_bytes'] / 1e6:.0f} MB, "
        f"limit of anonymous memory {LIMIT_BYTES / 1e6:.0f} MB"
    )
    base_cpu = commands.get("onnx-ir load and save", {}).get("cpu_seconds")
    print(
        f"{'':24}{'seconds':>9}{'x onnx-ir':>11}{'MB/s':>8}{'CPU s':>8}{'x onnx-ir':>11}"
        f"{'anonymous':>12}{'mapped':>11}"
    )
    good = True
    for name, found in commands.items():
        if "error" in found:
            print(f"{name:24}  {found['error'][:120]}")
            good = False
            continue
        ratio = found["seconds"] / base if base else float("nan")
        kept = found["anonymous_bytes"] <= LIMIT_BYTES
        if name == "prune, uniform" and base:
            kept &= ratio <= TIME_LIMIT
        ours = name != "onnx-ir load and save"
        good &= kept or not ours
        print(
            f"{name:24}{found['seconds']:9.2f}{ratio:11.2f}{size / 1e6 / found['seconds']:8.0f}"
            f"{found['cpu_seconds']:8.2f}{found['cpu_seconds'] / base_cpu if base_cpu else ratio:11.2f}"
            f"{found['anonymous_bytes'] / 1e6:9.0f} MB{found['mapped_bytes'] / 1e6:8.0f} MB"
            f"  {('kept' if kept else 'NOT KEPT') if ours else ''}"
        )
    return good


def main() -> None:
    """Parse the arguments, measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--only", nargs="*", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = run(Path(folder), arguments.gigabytes, arguments.repeats, arguments.only)
    good = report(result)
    rows = [{"command": name, **found} for name, found in result["commands"].items()]
    for row in rows:
        for key in ("anonymous_bytes", "mapped_bytes"):
            row[key.replace("bytes", "MB")] = row[key] / 1e6
    forms = {"command": "{}", "seconds": "{:.2f}", "cpu_seconds": "CPU seconds|{:.2f}"}
    forms |= {"anonymous_MB": "anonymous memory|{:.0f} MB", "mapped_MB": "mapped|{:.0f} MB"}
    title = f"A model of {result['model_bytes'] / 1e9:.2f} GB"
    note = f"Largest tensor {LARGEST_BYTES / 1e6:.0f} MB; anonymous memory may be {LIMIT_BYTES / 1e6:.0f} MB."
    tables = [record.table(title, rows, forms, note)]
    record.write(__file__, tables, {**result, "limits_kept": good}, arguments.json)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
