"""An event-driven model of a DRAM controller that reads, exact to the clock.

:mod:`hwmodel.dram.device` is the memory: which command may follow which, and when.
:mod:`hwmodel.dram.bank_queues` and :mod:`hwmodel.dram.read_buffer` are two controllers.
:mod:`hwmodel.dram.simulate` feeds them requests, and jumps from one event to the next.
"""
