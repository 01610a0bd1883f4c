"""The NumPy oracle: the bit contract written as plainly as NumPy allows.

It is the definition that every other backend is compared with, so it shares no code with
them and favours clarity over speed. One module per operation, each with one function of
the operation's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from scgpu import _trace
from scgpu.backend import Device, HostBackend, Step, check_step
from scgpu.oracle.accumulate import accumulate
from scgpu.oracle.activation import activation
from scgpu.oracle.bitwise import bitwise
from scgpu.oracle.compare import compare
from scgpu.oracle.conditional import conditional
from scgpu.oracle.count import count
from scgpu.oracle.delay import delay
from scgpu.oracle.dense import dense
from scgpu.oracle.drive import drive
from scgpu.oracle.encode import encode
from scgpu.oracle.fsm import fsm
from scgpu.oracle.lif import lif
from scgpu.oracle.lookup import lookup
from scgpu.oracle.pack import pack
from scgpu.oracle.permute import permute
from scgpu.oracle.philox import philox
from scgpu.oracle.poisson import poisson
from scgpu.oracle.prefix import prefix
from scgpu.oracle.propagate import propagate
from scgpu.oracle.stdp import stdp
from scgpu.oracle.trace import trace
from scgpu.oracle.unpack import unpack

KERNELS: dict[str, Any] = {
    kernel.__name__: kernel
    for kernel in (
        philox,
        encode,
        compare,
        dense,
        prefix,
        lookup,
        count,
        bitwise,
        delay,
        accumulate,
        conditional,
        pack,
        unpack,
        activation,
        lif,
        poisson,
        drive,
        propagate,
        trace,
        stdp,
        fsm,
        permute,
    )
}


class OracleBackend(HostBackend):
    """Runs steps with the oracle's functions."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def execute(self, steps: Sequence[Step], read: Sequence[NDArray[Any]] = ()) -> list[NDArray[Any]]:
        """Run steps one after the other."""
        recorder = _trace.recorder(self.device) if _trace.active else None
        for step in steps:
            op = check_step(step)
            if recorder:
                recorder.stage("check")
            KERNELS[step.op](*step.buffers, **step.params)
            if recorder:
                recorder.kernel(op, step.params)
        return list(read)
