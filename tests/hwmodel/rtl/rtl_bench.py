"""The test bench that cocotb runs inside the simulator: feeds chunks, counts clocks, notes values.

The chunks come from the file that ``SWB_CHUNKS`` names, the results go to the one of ``SWB_RESULTS``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, Timer

LIMIT = 100_000


@cocotb.test()
async def decode(dut) -> None:
    """Decode each chunk after the other."""
    Clock(dut.clk, 10, "ns").start()
    task = json.loads(Path(os.environ["SWB_CHUNKS"]).read_text(encoding="utf-8"))
    for name in ("start", "write", "address", "data", *task["ports"]):
        getattr(dut, name).value = 0
    dut.reset.value = 1
    await FallingEdge(dut.clk)
    dut.reset.value = 0
    results = []
    for chunk in task["chunks"]:
        await load(dut, bytes.fromhex(chunk["bytes"]))
        for name, number in chunk["ports"].items():
            getattr(dut, name).value = number
        results.append(await run(dut, task["width"], task["value_bits"]))
    Path(os.environ["SWB_RESULTS"]).write_text(json.dumps(results), encoding="utf-8")


async def load(dut, content: bytes) -> None:
    """Write a chunk into the buffer, then bits that no decoder may take for its own."""
    content += b"\xff" * (-len(content) % 8 + 32)
    dut.write.value = 1
    for word in range(len(content) // 8):
        dut.address.value = word
        dut.data.value = int.from_bytes(content[8 * word : 8 * word + 8], "little")
        await FallingEdge(dut.clk)
    dut.write.value = 0


async def run(dut, width: int, value_bits: int) -> dict[str, object]:
    """Start, and go on to the clock in which the decoder is done."""
    placed = []
    dut.start.value = 1
    await Timer(1, "ns")  # the rest of this clock is the clock of the start
    for clocks in range(1, LIMIT):
        valid, done = int(dut.valid.value), int(dut.done.value)
        if valid:
            position, value = int(dut.position.value), int(dut.value.value)
            for lane in range(width):
                if valid >> lane & 1:
                    place = position >> 32 * lane & 0xFFFFFFFF
                    placed.append((place, value >> value_bits * lane & (1 << value_bits) - 1))
        if done:
            if clocks == 1:
                await FallingEdge(dut.clk)
            dut.start.value = 0
            return {"clocks": clocks, "placed": placed}
        await FallingEdge(dut.clk)
        dut.start.value = 0
    return {"clocks": LIMIT, "placed": placed}
