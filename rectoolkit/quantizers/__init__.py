"""Quantizers: real rows to integer codes, and the gradient that trains through them. One method, one file."""

from rectoolkit.quantizers.base import Bits, OneBit, Quantizer, SignQuantizer
from rectoolkit.quantizers.bgch import BGCH
from rectoolkit.quantizers.bigear import BiGeaR
from rectoolkit.quantizers.dorefa import DoReFa
from rectoolkit.quantizers.float32 import Float32
from rectoolkit.quantizers.gste import GSTE
from rectoolkit.quantizers.hashgnn import HashGNN
from rectoolkit.quantizers.hashnet import HashNet
from rectoolkit.quantizers.itq import ITQ
from rectoolkit.quantizers.lsq import LSQ
from rectoolkit.quantizers.pact import PACT
from rectoolkit.quantizers.rotate_sign import RotateSign
from rectoolkit.quantizers.round import Round
from rectoolkit.quantizers.ste import STE
from rectoolkit.quantizers.uniform import UniformQuantizer

__all__ = [
    "BGCH",
    "GSTE",
    "ITQ",
    "LSQ",
    "PACT",
    "STE",
    "BiGeaR",
    "Bits",
    "DoReFa",
    "Float32",
    "HashGNN",
    "HashNet",
    "OneBit",
    "Quantizer",
    "RotateSign",
    "Round",
    "SignQuantizer",
    "UniformQuantizer",
]
