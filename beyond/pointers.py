"""Where a float lies in memory, for functions whose code is written instruction by instruction."""

from numba import types


def address_of(context, builder, floats, start, i):
    """Write what computes the address of floats[i].

    ``floats`` is the type: an array, or an address of float32. ``start`` and ``i`` are LLVM's names
    for the values; ``context`` and ``builder`` are what Numba passes to the code of an intrinsic.
    """
    if isinstance(floats, types.Array):
        start = context.make_array(floats)(context, builder, start).data
    return builder.gep(start, [i])  # "get element pointer": start + i, counted in floats
