"""scgpu: GPU-native stochastic computing for Python, the same bits on every backend.

A number becomes a stream of random bits, multiplication becomes AND, addition becomes
counting. `encode` makes streams, `DenseLayer` and `Network` multiply and add them, on any
GPU (WGSL through wgpu), any CPU (Zig SIMD), or NumPy, which defines the bits.
"""

from scgpu._cpu import simd_tier, simd_tiers
from scgpu._version import __version__
from scgpu.accuracy import progressive_value, rmse, stable_length, value_error
from scgpu.activation import Activation
from scgpu.arithmetic import (
    ParallelCount,
    absolute_difference,
    approximate_parallel_count,
    bernstein,
    bernstein_coefficients,
    maximum,
    minimum,
    multiply,
    mux,
    parallel_count,
    regenerate,
    saturating_add,
    scaled_add,
    unary_add,
)
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.conditional import conditional_counts, conditional_layer, conditional_product
from scgpu.correlation import pearson, pearson_matrix, scc, scc_matrix
from scgpu.count import popcount
from scgpu.dense import DenseLayer
from scgpu.deterministic import exact_operands
from scgpu.devices import device, devices, problems, restart_device
from scgpu.drive import ConstantCurrent, CurrentArray
from scgpu.encode import encode
from scgpu.errors import (
    CheckpointWarning,
    DeviceError,
    DeviceLossWarning,
    DeviceLostError,
    GpuError,
    NativeLibraryError,
    ScgpuError,
    SweepError,
    TooLargeError,
)
from scgpu.faults import drop_cycles, flip_bits, stuck_at
from scgpu.fsm import (
    StateMachine,
    decorrelate,
    desynchronise,
    divide,
    jk_flip_flop,
    linear_gain,
    relu,
    sexp,
    square_root,
    stanh,
    synchronise,
    t_flip_flop,
    toggle_add,
)
from scgpu.lfsr16 import BitstreamEncoder, Lfsr16
from scgpu.lif import batch_lif_run, batch_lif_run_multi, batch_lif_run_varying
from scgpu.network import Network
from scgpu.neuron import FixedPointLif, lif_step
from scgpu.pack import pack
from scgpu.philox import philox4x32
from scgpu.pipeline import Pending
from scgpu.poisson import PoissonInput
from scgpu.population import LifParameters, Population
from scgpu.profile import Profile, profile
from scgpu.propagate import Projection
from scgpu.raster import plot_raster, plot_rates, plot_recording, plot_voltages
from scgpu.recording import PopulationRecord, Recording
from scgpu.reference import available_backends, get_backend, sc_forward
from scgpu.reference_layers import GpuDenseLayer, VectorizedSCLayer
from scgpu.spike_source import BernoulliSource, SpikeTrain
from scgpu.spiking_network import SpikingNetwork
from scgpu.stdp import PairStdp
from scgpu.sweep import sweep
from scgpu.synapse import StdpSynapse
from scgpu.thermometer import thermometer
from scgpu.threads import num_threads, set_num_threads
from scgpu.unpack import unpack

__all__ = [
    "Activation",
    "BernoulliSource",
    "Bitstream",
    "BitstreamEncoder",
    "CheckpointWarning",
    "ConstantCurrent",
    "CurrentArray",
    "DenseLayer",
    "Device",
    "DeviceError",
    "DeviceLossWarning",
    "DeviceLostError",
    "FixedPointLif",
    "GpuDenseLayer",
    "GpuError",
    "Lfsr16",
    "LifParameters",
    "NativeLibraryError",
    "Network",
    "PairStdp",
    "ParallelCount",
    "Pending",
    "PoissonInput",
    "Population",
    "PopulationRecord",
    "Profile",
    "Projection",
    "Recording",
    "ScgpuError",
    "SpikeTrain",
    "SpikingNetwork",
    "StateMachine",
    "StdpSynapse",
    "SweepError",
    "TooLargeError",
    "VectorizedSCLayer",
    "__version__",
    "absolute_difference",
    "approximate_parallel_count",
    "available_backends",
    "batch_lif_run",
    "batch_lif_run_multi",
    "batch_lif_run_varying",
    "bernstein",
    "bernstein_coefficients",
    "conditional_counts",
    "conditional_layer",
    "conditional_product",
    "decorrelate",
    "desynchronise",
    "device",
    "devices",
    "divide",
    "drop_cycles",
    "encode",
    "exact_operands",
    "flip_bits",
    "get_backend",
    "jk_flip_flop",
    "lif_step",
    "linear_gain",
    "maximum",
    "minimum",
    "multiply",
    "mux",
    "num_threads",
    "pack",
    "parallel_count",
    "pearson",
    "pearson_matrix",
    "philox4x32",
    "plot_raster",
    "plot_rates",
    "plot_recording",
    "plot_voltages",
    "popcount",
    "problems",
    "profile",
    "progressive_value",
    "regenerate",
    "relu",
    "restart_device",
    "rmse",
    "saturating_add",
    "sc_forward",
    "scaled_add",
    "scc",
    "scc_matrix",
    "set_num_threads",
    "sexp",
    "simd_tier",
    "simd_tiers",
    "square_root",
    "stable_length",
    "stanh",
    "stuck_at",
    "sweep",
    "synchronise",
    "t_flip_flop",
    "thermometer",
    "toggle_add",
    "unary_add",
    "unpack",
    "value_error",
]
