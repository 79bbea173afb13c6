"""`estimate` over memories, encodings and decoders, and the files that it writes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hwmodel.codes import Codes
from hwmodel.decoding import DecoderSpec
from hwmodel.encodings import get_encoding
from hwmodel.estimate import Hardware, dense_cycles, encode_tensor, encoded_cycles
from hwmodel.fetch import fetch_stream
from hwmodel.memory import load_memory
from hwmodel.pipeline import Accelerator
from hwmodel.tensor import TensorSpec
from onnxprune import api
from onnxprune.errors import OutputError, RecipeError
from onnxprune.memories import find_memories, find_memory
from onnxprune.points_file import ALL_WEIGHTS, check_points_file, write_points


@pytest.fixture
def pruned(mlp: Path, tmp_path: Path) -> Path:
    path = tmp_path / "pruned.onnx"
    api.prune(mlp, path, sparsity=0.75)
    return path


def own_memory(path: Path, **changes: object) -> Path:
    """A YAML file with one memory like ddr4-2400."""
    values = load_memory("ddr4-2400").describe()
    del values["name"]
    values["mapping_msb_to_lsb"] = list(values["mapping_msb_to_lsb"])
    path.write_text(yaml.safe_dump({"mine": values | changes}), encoding="utf-8")
    return path


def test_one_combination_reports_each_weight(pruned: Path) -> None:
    report = api.estimate(pruned, memory="lpddr4-2400", encoding="bitmask")
    memory = load_memory("lpddr4-2400")
    assert report.memory == memory.describe()
    for weight in report.weights:
        fetch = weight.fetch
        assert fetch.fetched_bytes == (
            fetch.payload_bytes + fetch.metadata_bytes + fetch.padding_bytes
        )
        assert fetch.fetched_bytes % 128 == 0
        assert fetch.fetched_bytes >= weight.encoded_bytes
        assert weight.fetch_cycles == fetch_stream(memory, weight.encoded_bytes).cycles
        assert weight.dense_fetch_cycles == fetch_stream(memory, weight.dense_bytes).cycles
        assert fetch.energy_pJ is None
        assert fetch.decode_cycles == fetch.stall_cycles == 0
    assert report.totals.fetch_cycles == sum(w.fetch_cycles for w in report.weights)
    assert "energy_pJ" not in json.dumps(report.to_dict())


def test_every_combination_is_a_point(pruned: Path) -> None:
    report = api.estimate(
        pruned,
        memory="ddr4-2400,sram-rp2040",
        encoding="bitmask,rice,auto",
        decoder_lanes=(1, 4),
        chunk=16,
    )
    names = [(point.memory, point.encoding, point.decoder_lanes) for point in report.points]
    assert names == [
        (memory, encoding, lanes)
        for memory in ("ddr4-2400", "sram-rp2040")
        for encoding in ("bitmask", "rice", "auto")
        for lanes in (1, 4)
    ]
    assert [memory["name"] for memory in report.memories] == ["ddr4-2400", "sram-rp2040"]
    by_name = dict(zip(names, report.points, strict=True))
    one, four = by_name["sram-rp2040", "rice", 1], by_name["sram-rp2040", "rice", 4]
    assert one.encoded_bytes == four.encoded_bytes
    assert one.decode_cycles > four.decode_cycles
    assert one.fetch_cycles == one.decode_cycles + one.stall_cycles
    assert one.microseconds == pytest.approx(one.fetch_cycles * 7.52 / 1000)


def test_auto_by_cycles_is_never_slower_than_any_encoding(pruned: Path) -> None:
    report = api.estimate(
        pruned,
        memory="hbm2",
        encoding="auto-cycles,auto,dense,bitmask,csr,run_length,rice",
        decoder_lanes=(2,),
        chunk=32,
    )
    cycles = [point.fetch_cycles for point in report.points]
    assert cycles[0] == min(cycles)


def test_a_blob_is_estimated_as_it_is_stored(pruned: Path, tmp_path: Path) -> None:
    blob = tmp_path / "weights.swb"
    api.encode(pruned, blob, encoding="csr")
    by_blob = api.estimate(blob, memory="ddr4-2400")
    by_model = api.estimate(pruned, memory="ddr4-2400", encoding="csr")
    assert [w.fetch for w in by_blob.weights] == [w.fetch for w in by_model.weights]
    assert by_blob.points[0].encoding == "as stored"
    with pytest.raises(RecipeError, match="is a blob, whose tensors are encoded already"):
        api.estimate(blob, encoding="rice")


def test_own_memories_come_from_yaml(pruned: Path, tmp_path: Path) -> None:
    path = own_memory(
        tmp_path / "mine.yaml", tRCD=40, pJ_per_bit=20, pJ_per_bit_source="my data sheet"
    )
    assert find_memory(str(path)) == find_memory(f"{path}:mine")
    report = api.estimate(pruned, memory=f"ddr4-2400,{path}")
    shipped, mine = report.points
    assert mine.fetch_cycles > shipped.fetch_cycles
    assert shipped.energy_pJ is None
    assert mine.energy_pJ == 20 * 8 * mine.fetched_bytes
    assert report.memories[1]["pJ_per_bit_source"] == "my data sheet"


def test_the_reference_file_can_be_given_as_it_is(shared_folder: Path) -> None:
    path = shared_folder / "memories.yaml"
    if not path.is_file():
        pytest.skip("the reference file ../shared/memories.yaml is not here")
    for memory in find_memories(str(path)):
        assert memory == load_memory(memory.name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no file"),
        ("{", "is not valid YAML"),
        ("- 1", "must hold memories by name"),
        ("a: 3", "must hold memories by name"),
        ("a: {kind: sram, tCK_ns: 1, bus_bits: 32}", "memory 'a': the key read_latency is missing"),
        ("a: {kind: sram, tCK_ns: 1, bus_bit: 32}", "did you mean bus_bits"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_wrong_files_of_memories_are_refused(tmp_path: Path, content, sentence) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=sentence) as refused:
        find_memories(str(path))
    assert "mine.yaml" in str(refused.value)


def test_one_memory_is_wanted_where_one_is_used(tmp_path: Path) -> None:
    path = own_memory(tmp_path / "mine.yaml")
    with pytest.raises(RecipeError, match="holds 2 memories"):
        find_memory(f"{path},ddr4-2400")
    with pytest.raises(RecipeError, match="holds no memory 'other'; it holds mine"):
        find_memory(f"{path}:other")
    with pytest.raises(RecipeError, match=r"there is no memory 'ddr5'; known are .*YAML file"):
        find_memory("ddr5")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"encoding": "zip"}, "there is no encoding 'zip'; known are auto, auto-cycles, dense"),
        ({"decoder_lanes": (0,)}, "decoder's lanes must be a whole number from 1"),
        ({"chunk": -1}, "chunk must lie between 0"),
        ({"compute_lanes": -1}, "compute lanes must lie between 0"),
        ({"clock_ratio": 0.0}, "clock ratio must lie between"),
        ({"buffers": 0}, "number of buffers must lie between"),
        ({"buffer_bytes": 0}, "bytes of a buffer must lie between"),
    ],
)
def test_wrong_options_are_refused(pruned: Path, options, sentence) -> None:
    with pytest.raises(RecipeError, match=sentence):
        api.estimate(pruned, **options)


def test_points_are_written_as_csv_json_and_a_page(pruned: Path, tmp_path: Path) -> None:
    report = api.estimate(pruned, memory="ddr4-2400,hbm2", encoding="bitmask,rice")
    write_points(report, tmp_path / "points.csv")
    with (tmp_path / "points.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3
    sums = [row for row in rows if row["weight"] == ALL_WEIGHTS]
    for row, point in zip(sums, report.points, strict=True):
        weights = [
            one
            for one in rows
            if (one["memory"], one["encoding"]) == (point.memory, point.encoding)
            and one["weight"] != ALL_WEIGHTS
        ]
        for column in ("fetched_bytes", "payload_bytes", "memory_cycles", "cycles"):
            assert int(row[column]) == sum(int(one[column]) for one in weights)
        assert row["energy_pJ"] == ""
    write_points(report, tmp_path / "points.json")
    document = json.loads((tmp_path / "points.json").read_text(encoding="utf-8"))
    assert len(document["points"]) == 4
    write_points(report, tmp_path / "points.html")
    page = (tmp_path / "points.html").read_text(encoding="utf-8")
    assert "Bytes against time" in page
    assert page.count("<circle") == 4
    assert "hbm2, rice: bytes fetched" in page


def test_a_single_memory_is_plotted_in_cycles(pruned: Path, tmp_path: Path) -> None:
    write_points(api.estimate(pruned, encoding="bitmask,rice"), tmp_path / "points.html")
    assert "Bytes against cycles" in (tmp_path / "points.html").read_text(encoding="utf-8")
    write_points(api.estimate(pruned), tmp_path / "one.html")
    page = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert page.count("<circle") == 4


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in \.csv, \.json, \.html"):
        check_points_file(tmp_path / "points.txt")
    with pytest.raises(OutputError, match="does not exist"):
        check_points_file(tmp_path / "none" / "points.csv")


def sparse(shape=(64, 256), density=0.1, seed=0):
    rng = np.random.default_rng(seed)
    array = rng.integers(1, 127, shape).astype(np.int8)
    array[rng.random(shape) > density] = 0
    spec = TensorSpec("w", shape, "int8")
    return array, spec, Codes.of(array, spec)


def test_decode_limited_tensors_take_their_decode_cycles() -> None:
    _, _, codes = sparse()
    decoder = DecoderSpec(lanes=1)
    encoding = get_encoding("rice", {"chunk": 512})
    chunk_cycles = encoding.decode_cycles(codes, decoder)
    tensor = encode_tensor(encoding, codes, decoder)
    hardware = Hardware(load_memory("hbm2"), decoder, Accelerator(buffers=2))
    cycles = encoded_cycles(tensor, hardware)
    assert cycles.decode_cycles == chunk_cycles.sum()
    assert cycles.cycles == cycles.decode_cycles + cycles.stall_cycles
    assert cycles.stall_cycles < 0.1 * cycles.cycles
    twice = encoded_cycles(tensor, Hardware(load_memory("hbm2"), decoder, Accelerator(2.0)))
    assert twice.decode_cycles == pytest.approx(cycles.decode_cycles / 2, rel=0.01)


def test_compute_lanes_wait_for_the_fullest_and_dense_takes_every_weight() -> None:
    _, _, codes = sparse()
    hardware = Hardware(load_memory("hbm2"), None, Accelerator(), compute_lanes=16)
    tensor = encode_tensor(get_encoding("bitmask", {"chunk": 1024}), codes, None)
    cycles = encoded_cycles(tensor, hardware)
    nonzeros = int(np.count_nonzero(codes.numbers))
    assert nonzeros / 16 < cycles.compute_cycles < nonzeros / 16 * 2.5
    assert dense_cycles(codes, hardware).compute_cycles == codes.size // 16


def test_an_empty_tensor_costs_nothing() -> None:
    array = np.zeros((0, 4), np.float32)
    spec = TensorSpec("w", array.shape, "float32")
    codes = Codes.of(array, spec)
    hardware = Hardware(load_memory("ddr4-2400"), DecoderSpec(), Accelerator(), 4)
    assert dense_cycles(codes, hardware).cycles == 0
    tensor = encode_tensor(get_encoding("bitmask", {"chunk": 8}), codes, DecoderSpec())
    assert encoded_cycles(tensor, hardware).cycles == 0


def test_the_decoder_and_the_alignment_are_those_asked_for(pruned: Path) -> None:
    report = api.estimate(pruned, decoder=["bitmask", "csr"], chunk=64, align=64)
    plain = api.estimate(pruned, decoder=["bitmask", "csr"], chunk=64)
    assert {weight.encoding for weight in report.weights} <= {"bitmask", "csr"}
    assert report.totals.fetch_cycles >= plain.totals.fetch_cycles
    assert sum(w.encoded_bytes for w in report.weights) > sum(
        w.encoded_bytes for w in plain.weights
    )
    with pytest.raises(RecipeError, match="the decoder knows csr, not 'rice'"):
        api.estimate(pruned, encoding="rice", decoder=["csr"])
    with pytest.raises(RecipeError, match="power of two"):
        api.estimate(pruned, align=3)
