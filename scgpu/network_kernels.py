"""The kernel calls of a network in one interval: of a population, and of a projection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scgpu.backend import Backend, Step
from scgpu.drive import ConstantCurrent, CurrentArray, Currents, drive_step
from scgpu.lif import Input, Records, lif_step_of
from scgpu.poisson import PoissonInput, poisson_step
from scgpu.population import Population
from scgpu.propagate import Projection, propagate_step
from scgpu.stdp import PairStdp, stdp_step
from scgpu.timeline import Interval
from scgpu.trace import trace_step

External = ConstantCurrent | CurrentArray | PoissonInput
EXTERNALS = (ConstantCurrent, CurrentArray, PoissonInput)


class Cells:
    """A population in a network: what comes in, and the buffers that its kernels share.

    ``delays`` are those of the projections to it; intervals are at most ``longest`` steps.
    """

    def __init__(self, population: Population, inputs: Sequence[External], delays: Sequence[int], longest: int) -> None:
        backend = population._backend
        self.population = population
        mine = [one for one in inputs if one.target is population]
        self.currents = Currents(
            population,
            [one for one in mine if isinstance(one, ConstantCurrent)],
            [one for one in mine if isinstance(one, CurrentArray)],
        )
        self.poisson = [(one, backend.upload(one.thresholds.copy())) for one in mine if isinstance(one, PoissonInput)]
        # Where nothing arrives and no current changes, neurons read the constants themselves.
        self.steady = not (delays or self.poisson or self.currents.step_count)
        self.slot_count = 1 if self.steady else max([longest, *delays])
        # The spikes of a block, too, must fit a buffer.
        backend.require(max(8, 4 * self.slot_count) * population.count)
        self.inbox = backend.upload(np.zeros(self.slot_count * population.count, "<i4"))
        self.drives = backend.empty("i16", 0 if self.steady else longest * population.row_stride)
        self.counts = backend.upload(np.zeros(population.count, "<u4"))
        self._nothing = backend.empty("u32", 0)

    def steps(self, clock: Any, words: Any, voltages: tuple[Any, int], interval: Interval) -> Iterator[Step]:
        """The kernel calls of one interval: inputs, drive, neurons."""
        population = self.population
        when = {"step_offset": interval.offset, "step_count": interval.steps, "slot_count": self.slot_count}
        for source, thresholds in self.poisson:
            yield poisson_step(source, clock, thresholds, self.inbox, **when)
        neurons, drives = population._neurons, self.drives
        if self.steady:
            constants = Input(np.zeros(0, "<i2"), self.currents.constant_stride, 0)
            neurons, drives = replace(neurons, current=constants), self.currents.constants
        else:
            yield drive_step(population, self.currents, clock, self.inbox, drives, **when)
        yield lif_step_of(
            neurons,
            (population._table, population._state, drives, population._noise, self.counts),
            Records(words, 1, interval.block * population.count, self._nothing, 0, *voltages),
            step_begin=0,
            step_count=interval.steps,
            record_begin=interval.offset,
            first_bit=interval.first_bit,
        )


class Traces:
    """The traces of one side of a plastic projection."""

    def __init__(self, backend: Backend, count: int, amplitude: int, longest: int) -> None:
        self.count, self.amplitude = count, amplitude
        self.state = backend.upload(np.zeros(count, "<i4"))
        self.values = backend.empty("i32", longest * count)

    def step(self, rule: PairStdp, words: Any, word_begin: int, word_stride: int, interval: Interval) -> Step:
        """The kernel call that brings them through an interval."""
        return trace_step(
            rule,
            words,
            self.state,
            self.values,
            amplitude=self.amplitude,
            neuron_count=self.count,
            step_count=interval.steps,
            first_bit=interval.first_bit,
            word_begin=word_begin,
            word_stride=word_stride,
        )


class Synapses:
    """A projection in a network: the inbox it fills and, where it is plastic, its traces."""

    def __init__(self, projection: Projection, target: Cells, longest: int) -> None:
        self.projection = projection
        self.target = target
        rule = projection.plasticity
        backend = projection.target._backend
        self.traces: tuple[Traces, ...] = ()
        if rule is not None:
            self.traces = (
                Traces(backend, projection.source.count, rule.a_plus, longest),
                Traces(backend, projection.target.count, abs(rule.a_minus), longest),
            )

    def steps(self, clock: Any, source: Any, stride: int, target: Any, interval: Interval) -> Iterator[Step]:
        """The kernel calls of one interval, from the spikes of both sides.

        Words of a population have a ``stride`` of 1 and lie block by block; else a source has rows of ``stride``.
        """
        projection, rule = self.projection, self.projection.plasticity
        if isinstance(projection.source, Population):
            begin = interval.block * projection.source.count
        else:
            begin = interval.block
        where = {"first_bit": interval.first_bit, "slot_count": self.target.slot_count}
        when = {"step_offset": interval.offset, "step_count": interval.steps}
        if rule is None:
            yield propagate_step(
                projection, clock, source, self.target.inbox, word_begin=begin, word_stride=stride, **where, **when
            )
            return
        of_target = interval.block * projection.target.count
        yield self.traces[0].step(rule, source, begin, stride, interval)
        yield self.traces[1].step(rule, target, of_target, 1, interval)
        yield stdp_step(
            rule,
            clock,
            (source, target),
            (self.traces[0].values, self.traces[1].values),
            (projection._sources, projection._targets),
            projection._weights,
            self.target.inbox,
            source_count=projection.source.count,
            target_count=projection.target.count,
            synapse_count=projection.synapse_count,
            source_word_begin=begin,
            source_word_stride=stride,
            target_word_begin=of_target,
            delay=projection.delay,
            dense=projection.dense,
            **where,
            **when,
        )
