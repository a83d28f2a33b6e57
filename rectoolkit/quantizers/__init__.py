"""Quantizers: real rows to integer codes, and the gradient that trains through them. One method, one file."""

from rectoolkit.quantizers.base import Bits, Quantizer, UniformQuantizer
from rectoolkit.quantizers.float32 import Float32
from rectoolkit.quantizers.gste import GSTE
from rectoolkit.quantizers.ste import STE

__all__ = ["GSTE", "STE", "Bits", "Float32", "Quantizer", "UniformQuantizer"]
