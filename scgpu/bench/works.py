"""Works: what the benchmark measures, each with its peers and the machine's ceiling for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scgpu import ceiling
from scgpu.arguments import Polarity
from scgpu.arithmetic import unary_add
from scgpu.backend import Device
from scgpu.balanced_network import balanced_network
from scgpu.bench import peers
from scgpu.bench.peers import Work
from scgpu.bitstream import Bitstream
from scgpu.conditional import conditional_product
from scgpu.count import popcount
from scgpu.dense import DenseLayer
from scgpu.drive import ConstantCurrent
from scgpu.encode import encode
from scgpu.errors import ScgpuError
from scgpu.fsm import StateMachine, decorrelate, divide, relu, stanh, synchronise
from scgpu.lfsr16 import lfsr_streams
from scgpu.lif import batch_lif_run, batch_lif_run_multi, batch_lif_run_varying
from scgpu.pack import pack
from scgpu.population import LifParameters, Population
from scgpu.sequence import SEQUENCES, SequenceName
from scgpu.sng import NumberTable, SngName, sobol_directions, sobol_points
from scgpu.spiking_network import SpikingNetwork
from scgpu.unpack import unpack

LENGTH = 1024
SHAPES = ((64, 32), (256, 128), (512, 256), (1000, 500), (4096, 4096))
BATCHES = (1, 100, 256, 1000)
SWEEP = (128, 256, 512, 1024, 2048, 4096)
SWEEP_SHAPE = (32, 16)
SHARED = ((512, 256, 1024), (1000, 500, 4096))
GENERATORS: tuple[SngName, ...] = ("sobol", "lfsr")
MILLION = 1_000_000
MACHINE_STREAMS = 1000
PERIOD = 1 << peers.WIDTH  # bits of a weight's generator in uGEMM
UNARY_SHAPE = (512, 256)
POLARITIES: tuple[Polarity, ...] = ("unipolar", "bipolar")
UNARY_DEPTH = 12
NEURONS = 100
STEPS = 100_000
NETWORK_STEPS = 1000
BALANCED_NEURONS = 10_000
SYNAPSE_BYTES = 6  # a target and a weight
BLOCK_BYTES = 8 + 8 + 8  # of a neuron in 64 steps: its state, its spikes and their count, read and written
PROFILED_BITS = 1 << 36  # larger work is left out of a profile


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes
    ----------
    section, name : str
        Where it stands in the tables.
    bits : int
        Bits of streams that it makes, packs, counts or multiplies.
    ours : callable
        Makes our work; called when the case is measured.
    peers : dict
        The same for peers, by name.
    ceiling : callable
        Makes work that takes the machine's least time for the case, or gives that time in seconds.
    absent : dict
        Peers that this machine lacks, by name, and why.
    """

    section: str
    name: str
    bits: int
    ours: Callable[[], Work]
    peers: dict[str, Callable[[], Work]] = field(default_factory=dict)
    ceiling: Callable[[], Work | float | None] = field(default=lambda: None)
    absent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """A device, and the peers to measure it beside."""

    device: Device
    engine: peers.Engine | None
    arrays: tuple[peers.ArrayPeer, ...] = ()
    unarysim: peers.UnarySim | str = ""  # or why there is none; nothing where no peer is asked for

    def _dense_peers(self, n_inputs: int, n_neurons: int, words: np.ndarray) -> dict[str, Callable[[], Work]]:
        """AND and population count of packed inputs (sample, n_inputs, words), by array libraries."""
        flat = words.reshape(len(words), -1)

        def make(peer: peers.ArrayPeer) -> Work:
            weights = np.random.default_rng(2).integers(0, 2**64, (n_neurons, flat.shape[1]), dtype=np.uint64)
            return peer.dense(weights, flat)

        return {peer.name: lambda peer=peer: make(peer) for peer in self.arrays}  # type: ignore[misc]

    def prepacked(self, n_inputs: int, n_neurons: int, length: int, section: str, name: str) -> Case:
        """One sample of packed inputs: bound by reading the weights."""
        device, engine = self.device, self.engine
        streams = encode(np.random.default_rng(1).random(n_inputs), length, device=device)
        words = streams.words.copy()

        def ours() -> Work:
            layer = DenseLayer(n_inputs, n_neurons, length, device=device)
            return lambda: layer.forward_prepacked(streams)

        others = self._dense_peers(n_inputs, n_neurons, words[None])
        if engine:
            others[peers.ENGINE] = lambda: engine.prepacked(n_inputs, n_neurons, length, words)
        bits = n_inputs * n_neurons * length
        return Case(section, name, bits, ours, others, lambda: ceiling.read_work(device, bits // 8))

    def one_sample(self) -> Iterator[Case]:
        """One sample, prepacked, of each shape."""
        for n, m in SHAPES:
            yield self.prepacked(n, m, LENGTH, "one sample, prepacked", f"{n}x{m}")

    def sweep(self) -> Iterator[Case]:
        """A small layer at rising lengths."""
        n, m = SWEEP_SHAPE
        for length in SWEEP:
            yield self.prepacked(n, m, length, f"lengths, {n}x{m}, one sample, prepacked", f"L = {length}")

    def batches(self) -> Iterator[Case]:
        """Batches of numbers, encoding included."""
        for batch in BATCHES:
            for n, m in SHAPES:
                yield self._batch(batch, n, m)

    def _batch(self, batch: int, n_inputs: int, n_neurons: int) -> Case:
        device, engine = self.device, self.engine
        x = np.random.default_rng(1).random((batch, n_inputs))
        bits = batch * n_inputs * n_neurons * LENGTH

        def ours() -> Work:
            layer = DenseLayer(n_inputs, n_neurons, LENGTH, device=device)
            return lambda: layer.forward(x)

        def least() -> Work | float | None:
            if batch == 1:
                return ceiling.read_work(device, bits // 8)
            rate = ceiling.product_rate(device)
            return bits / 64 / rate if rate else None

        others: dict[str, Callable[[], Work]] = {}
        if engine:
            others[peers.ENGINE] = lambda: engine.batch(n_inputs, n_neurons, LENGTH, x)
        return Case(f"batch of {batch}, encoding included", f"{n_inputs}x{n_neurons}", bits, ours, others, least)

    def shared(self) -> Iterator[Case]:
        """Shared weight streams; the peers multiply independent ones, which cost the same bits."""
        for sequence in SEQUENCES:
            for n, m, length in SHARED:
                yield self._shared(sequence, n, m, length)

    def _shared(self, sequence: SequenceName, n_inputs: int, n_neurons: int, length: int) -> Case:
        device, engine = self.device, self.engine
        streams = encode(np.random.default_rng(1).random(n_inputs), length, device=device)
        words = streams.words.copy()

        def ours() -> Work:
            layer = DenseLayer(n_inputs, n_neurons, length, weight_streams="shared", sequence=sequence, device=device)
            return lambda: layer.forward_prepacked(streams)

        others: dict[str, Callable[[], Work]] = {}
        if engine:
            others[peers.ENGINE] = lambda: engine.prepacked(n_inputs, n_neurons, length, words)
        # What has to be read: two bytes for each weight, and for each position of an order.
        read = 2 * n_inputs * (n_neurons + (length if sequence == "philox" else 0))
        return Case(
            f"shared weight streams, {sequence}, one sample, prepacked",
            f"{n_inputs}x{n_neurons}, L = {length}",
            n_inputs * n_neurons * length,
            ours,
            others,
            lambda: ceiling.read_work(device, read),
        )

    def encode(self) -> Iterator[Case]:
        """Encoding of numbers; the ceiling has comparators of 8 bits, which two Philox blocks decide.

        Other generators read a number of 4 bytes for each bit.
        """
        device, engine = self.device, self.engine
        p = np.random.default_rng(1).random(1000)
        others: dict[str, Callable[[], Work]] = {}
        if engine:
            others[peers.ENGINE] = lambda: lambda: engine.module.batch_encode_numpy(p, LENGTH)
        yield Case(
            "encode",
            "1,000 numbers",
            1000 * LENGTH,
            lambda: lambda: encode(p, LENGTH, device=device),
            others,
            lambda: lambda: encode(p, LENGTH, resolution=8, device=device),
        )
        for sng in GENERATORS:
            yield Case(
                "encode",
                f"1,000 numbers, {sng}",
                1000 * LENGTH,
                lambda sng=sng: lambda: encode(p, LENGTH, sng=sng, device=device),  # type: ignore[misc]
                ceiling=lambda: ceiling.read_work(device, 4 * p.size * LENGTH),
            )

    def packing(self) -> Iterator[Case]:
        """Packing, unpacking and counting; the ceilings read or write as many bytes with NumPy."""
        device, engine = self.device, self.engine
        rng = np.random.default_rng(1)
        bits = rng.integers(0, 2, MILLION, dtype=np.uint8)
        packed = pack(bits)
        words = rng.integers(0, 2**64, MILLION, dtype=np.uint64)
        unpacked = np.empty(MILLION, np.uint8)
        theirs = engine.module if engine else None
        works: dict[str, tuple[int, Work, Work, Work | None]] = {
            "pack 1,000,000 bits": (
                MILLION,
                lambda: pack(bits, device=device),
                lambda: np.bitwise_or.reduce(bits.view(np.uint64)),
                theirs and (lambda: theirs.pack_bitstream_numpy(bits)),
            ),
            "unpack 1,000,000 bits": (
                MILLION,
                lambda: unpack(packed, MILLION, device=device),
                lambda: unpacked.fill(0),
                theirs and (lambda: theirs.unpack_bitstream_numpy(packed, MILLION)),
            ),
            "popcount of 1,000,000 words": (
                64 * MILLION,
                lambda: popcount(words, device=device),
                lambda: np.bitwise_or.reduce(words),
                theirs and (lambda: theirs.popcount_numpy(words)),
            ),
        }
        for name, (size, ours, least, other) in works.items():
            others: dict[str, Callable[[], Work]] = {}
            if other:
                others[peers.ENGINE] = lambda other=other: other  # type: ignore[misc]
            yield Case("packing", name, size, lambda ours=ours: ours, others, lambda least=least: least)  # type: ignore[misc]

    def neurons(self) -> Iterator[Case]:
        """Fixed-point neurons; the ceilings write what is recorded, or read the currents that change, with NumPy."""
        device, engine = self.device, self.engine
        currents = np.random.default_rng(1).integers(0, 256, NEURONS).astype(np.int16)
        given = (NEURONS, STEPS, 20, 256, currents)
        moving = np.random.default_rng(2).integers(0, 256, (NEURONS, STEPS // 10)).astype(np.int16)
        out = (np.empty((NEURONS, STEPS), np.int32), np.empty((NEURONS, STEPS), np.int16))
        one = (STEPS, 20, 256, 128)

        def fill(*sizes: int) -> Work:
            return lambda: [np.full(size, 1, np.uint8) for size in sizes]

        def refill() -> None:
            for array in out:
                array.fill(1)

        works: dict[str, tuple[int, Work, Work, Callable[[Any], object]]] = {
            "new arrays": (
                NEURONS * STEPS,
                lambda: batch_lif_run_multi(*given, device=device),
                fill(4 * NEURONS * STEPS, 2 * NEURONS * STEPS),
                lambda peer: peer.batch_lif_run_multi(*given),
            ),
            "into out": (
                NEURONS * STEPS,
                lambda: batch_lif_run_multi(*given, out=out, device=device),
                refill,
                lambda peer: peer.batch_lif_run_multi(*given),
            ),
            "packed spikes": (
                NEURONS * STEPS,
                lambda: batch_lif_run_multi(*given, record="spikes", device=device),
                fill(NEURONS * STEPS // 8),
                lambda peer: peer.batch_lif_run_multi(*given),
            ),
            "a tenth of the steps, currents that change, packed spikes": (
                NEURONS * STEPS // 10,
                lambda: batch_lif_run_varying(20, 256, moving, record="spikes", device=device),
                lambda: np.bitwise_or.reduce(moving, axis=None),
                lambda peer: [peer.batch_lif_run_varying(20, 256, row) for row in moving],
            ),
            "one neuron": (
                STEPS,
                lambda: batch_lif_run(*one, device=device),
                fill(4 * STEPS, 2 * STEPS),
                lambda peer: peer.batch_lif_run(*one),
            ),
        }
        for name, (bits, ours, least, other) in works.items():
            others: dict[str, Callable[[], Work]] = {}
            if engine:
                others[peers.ENGINE] = lambda other=other: lambda: other(engine.module)  # type: ignore[misc]
            yield Case(
                f"neurons, {NEURONS} and {STEPS:,} steps",
                name,
                bits,
                lambda ours=ours: ours,  # type: ignore[misc]
                others,
                lambda least=least: least,  # type: ignore[misc]
            )

    def machines(self) -> Iterator[Case]:
        """State machines over many streams; the ceilings read as many bytes as streams come in and go out.

        Ones are counted at the end, so that a GPU is waited for.
        """
        device, streams = self.device, MACHINE_STREAMS
        x, y = (encode(np.full(streams, 0.4), LENGTH, seed, device=device) for seed in (1, 2))
        bipolar = encode(np.zeros(streams), LENGTH, 3, polarity="bipolar", device=device)
        rng = np.random.default_rng(1)
        machine = StateMachine(rng.integers(0, 65_536, (65_536, 2)), rng.integers(0, 2, 65_536))
        works: dict[str, tuple[int, Work]] = {
            "stanh, 16 states": (2, lambda: stanh(bipolar, 16).count()),
            "relu, 32 states": (2, lambda: relu(bipolar).count()),
            "synchronise, 3 states, 2 inputs, 2 outputs": (4, lambda: synchronise(x, y)[1].count()),
            "divide, 2 states, 2 inputs": (3, lambda: divide(x, y).count()),
            "decorrelate, 16 states, 3 inputs": (4, lambda: decorrelate(bipolar, x, y).count()),
            "any machine of 65,536 states": (2, lambda: machine.run(x)[0].count()),
        }
        for name, (moved, work) in works.items():
            yield Case(
                f"state machines, {streams:,} streams of {LENGTH:,} bits",
                name,
                streams * LENGTH,
                lambda work=work: work,  # type: ignore[misc]
                ceiling=lambda moved=moved: ceiling.read_work(device, moved * streams * LENGTH // 8),  # type: ignore[misc]
            )

    def unary(self) -> Iterator[Case]:
        """Units and a layer of uGEMM, and the streams of `sc_forward`; the ceilings read what comes in and goes out.

        Bits are those of the results. Ones are counted at the end, so that a GPU is waited for.
        """
        device, streams = self.device, MACHINE_STREAMS
        p = np.random.default_rng(1).random(streams)
        words = -(-LENGTH // 64) * 8 * streams
        works: dict[str, tuple[int, Work]] = {}
        for inputs in (2, 16):
            added = [encode(p, LENGTH, seed, polarity="bipolar", device=device) for seed in range(inputs)]
            works[f"unary_add of {inputs} streams"] = (inputs + 1, lambda added=added: unary_add(added).count())  # type: ignore[misc]
        for polarity in POLARITIES:
            x, w = (encode(p, length, 1, polarity=polarity, device=device) for length in (LENGTH, PERIOD))
            works[f"conditional_product, {polarity}"] = (2, lambda x=x, w=w: conditional_product(x, w).count())  # type: ignore[misc]
        works["lfsr_streams of sc_forward"] = (33, lambda: lfsr_streams(p, LENGTH, device=device).count())
        for name, (moved, work) in works.items():
            yield Case(
                f"uGEMM, {streams:,} streams of {LENGTH:,} bits",
                name,
                streams * LENGTH,
                lambda work=work: work,  # type: ignore[misc]
                ceiling=lambda moved=moved: ceiling.read_work(device, moved * words),  # type: ignore[misc]
            )
        for polarity in POLARITIES:
            yield self._unary_layer(polarity)

    def _unary_layer(self, polarity: Polarity) -> Case:
        """uGEMM's layer, non-scaled: bits of its outputs, which UnarySim's must equal."""
        device, unarysim = self.device, self.unarysim
        n_inputs, n_neurons = UNARY_SHAPE
        rng = np.random.default_rng(1)
        bits = (rng.random((n_inputs, PERIOD)) < 0.4).astype(np.uint8)
        # unipolar sums of so many inputs would be 1 at all times
        levels = rng.integers(0, PERIOD + 1, (n_neurons, n_inputs)) // (1 if polarity == "bipolar" else n_inputs)
        values = 2 * levels / PERIOD - 1 if polarity == "bipolar" else levels / PERIOD
        numbers = NumberTable(
            (sobol_points(sobol_directions()[0], PERIOD) >> np.uint32(32 - peers.WIDTH)) << np.uint32(32 - peers.WIDTH)
        )
        x = Bitstream.from_bits(bits, polarity=polarity, device=device)
        w = encode(values.T, PERIOD, polarity=polarity, resolution=peers.WIDTH, sng=numbers, device=device)

        def ours() -> Bitstream:
            row = x.words[:, None]
            repeated = np.broadcast_to(row, (n_inputs, n_neurons, row.shape[-1]))
            inputs = Bitstream.from_words(repeated, PERIOD, polarity=polarity, device=device)
            return unary_add(conditional_product(inputs, w), depth=UNARY_DEPTH)

        def theirs() -> Work:
            assert isinstance(unarysim, peers.UnarySim)
            work = unarysim.layer(values, bits.T, polarity, UNARY_DEPTH)
            if not np.array_equal(work().T, ours().bits()):
                raise ScgpuError(
                    "UnarySim's layer and ours differ in a bit: another version of it, or of its generator?"
                )
            return work

        return Case(
            f"uGEMM, layer, {n_inputs}x{n_neurons}, L = {PERIOD}, one sample, output bits",
            polarity,
            n_inputs * n_neurons * PERIOD,
            lambda: lambda: ours().words,
            {peers.UNARYSIM: theirs} if isinstance(unarysim, peers.UnarySim) else {},
            lambda: ceiling.read_work(device, n_inputs * n_neurons * PERIOD // 8 * 4),
            {peers.UNARYSIM: unarysim} if isinstance(unarysim, str) and unarysim else {},
        )

    def networks(self) -> Iterator[Case]:
        """Networks that live on the device; the ceilings read what no cache holds: state, or rows of synapses."""
        device, steps = self.device, NETWORK_STEPS

        def million() -> Work:
            cells = Population(MILLION, LifParameters(20, 256), device=device)
            network = SpikingNetwork([cells], inputs=[ConstantCurrent(cells, np.arange(MILLION) % 256)])
            return lambda: network.run(steps, record="spikes", progress=False)

        def balanced() -> Work:
            network = balanced_network(BALANCED_NEURONS, device=device)
            return lambda: network.run(steps, record="spikes", progress=False)

        def rows() -> Work:
            network = balanced_network(BALANCED_NEURONS, device="cpu")
            spikes = sum(int(one.counts.sum()) for one in network.run(steps, record="spikes").values())
            synapses = sum(one.synapse_count for one in network.projections) // BALANCED_NEURONS
            return ceiling.read_work(device, SYNAPSE_BYTES * spikes * synapses)

        words = -(-steps // 64) + 1
        yield Case(
            f"networks, {steps:,} steps",
            f"{MILLION:,} neurons, packed spikes",
            MILLION * steps,
            million,
            ceiling=lambda: ceiling.read_work(device, MILLION * words * BLOCK_BYTES),
        )
        yield Case(
            f"networks, {steps:,} steps",
            f"balanced, {BALANCED_NEURONS:,} neurons, 10 % synapses, packed spikes",
            BALANCED_NEURONS * steps,
            balanced,
            ceiling=rows,
        )


SECTIONS: dict[str, Callable[[Bench], Iterator[Case]]] = {
    "one-sample": Bench.one_sample,
    "batch": Bench.batches,
    "lengths": Bench.sweep,
    "shared": Bench.shared,
    "encode": Bench.encode,
    "packing": Bench.packing,
    "neurons": Bench.neurons,
    "machines": Bench.machines,
    "unary": Bench.unary,
    "networks": Bench.networks,
}
