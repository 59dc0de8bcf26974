"""The SIMD registers of the CPU that Numba compiles for."""

from llvmlite import binding as llvm
from numba.core.registry import cpu_target

ADD_16_FLOATS = """
define <16 x float> @add(<16 x float> %x) {
    %sum = fadd <16 x float> %x, %x
    ret <16 x float> %sum
}"""


def simd_registers():
    """Return how many floats a SIMD register holds, and how many registers there are.

    Numba's compiler, LLVM, knows each CPU, but can't be asked for this. So it compiles an addition
    of 16 floats, and the name of the register in its assembly code is the answer.
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()  # Numba's target
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu, features)
    assembly = machine.emit_assembly(llvm.parse_assembly(ADD_16_FLOATS))
    if "zmm" in assembly:  # AVX-512
        return 16, 32
    if "ymm" in assembly:  # AVX, AVX2
        return 8, 16
    if "xmm" in assembly:  # SSE
        return 4, 16
    return 4, 32  # NEON, which every 64-bit ARM has


LANES, REGISTERS = simd_registers()
