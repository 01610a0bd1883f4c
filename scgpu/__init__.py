"""scgpu: GPU-native stochastic computing for Python, the same bits on every backend.

A number becomes a stream of random bits, multiplication becomes AND, addition becomes
counting. `encode` makes streams, `DenseLayer` and `Network` multiply and add them, on any
GPU (WGSL through wgpu), any CPU (Zig SIMD), or NumPy, which defines the bits.
"""

from scgpu._cpu import simd_tier, simd_tiers
from scgpu._version import __version__
from scgpu.activation import Activation
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.count import popcount
from scgpu.dense import DenseLayer
from scgpu.devices import device, devices, problems
from scgpu.drive import ConstantCurrent, CurrentArray
from scgpu.encode import encode
from scgpu.errors import DeviceError, GpuError, NativeLibraryError, ScgpuError, TooLargeError
from scgpu.faults import drop_cycles, flip_bits, stuck_at
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
from scgpu.spike_source import BernoulliSource, SpikeTrain
from scgpu.spiking_network import SpikingNetwork
from scgpu.stdp import PairStdp
from scgpu.synapse import StdpSynapse
from scgpu.threads import num_threads, set_num_threads
from scgpu.unpack import unpack

__all__ = [
    "Activation",
    "BernoulliSource",
    "Bitstream",
    "ConstantCurrent",
    "CurrentArray",
    "DenseLayer",
    "Device",
    "DeviceError",
    "FixedPointLif",
    "GpuError",
    "LifParameters",
    "NativeLibraryError",
    "Network",
    "PairStdp",
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
    "StdpSynapse",
    "TooLargeError",
    "__version__",
    "batch_lif_run",
    "batch_lif_run_multi",
    "batch_lif_run_varying",
    "device",
    "devices",
    "drop_cycles",
    "encode",
    "flip_bits",
    "lif_step",
    "num_threads",
    "pack",
    "philox4x32",
    "plot_raster",
    "plot_rates",
    "plot_recording",
    "plot_voltages",
    "popcount",
    "problems",
    "profile",
    "set_num_threads",
    "simd_tier",
    "simd_tiers",
    "stuck_at",
    "unpack",
]
