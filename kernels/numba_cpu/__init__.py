"""The CPU backend: kernels compiled for this processor, walked by one compiled loop.

How to write a kernel
=====================

A kernel is machine code `void kernel(int64 *args, int64 part, int64 parts)`. It reads everything from `args` (int64
words: addresses, counts, strides in elements, bits of floats), does share `part` of `parts` of the work, allocates
nothing, raises nothing. The bits of a result are the same for every `parts`, so a sum is never split over parts.
A value that may change between replays (learning rate, step) is passed as the address of a 0-d array.

1. The code is a plain function in `jit/`, the only folder whose modules import Numba at top level:

       # jit/scale.py
       from kernels.numba_cpu.host import host
       from kernels.numba_cpu.jit.vector import first, float_bits, load, load_masked, pointer, store, store_masked

       def scale(dtype):                               # dtype: vector.float32 or vector.float64
           # x, out, n, factor: out[i] = factor * x[i]
           L = host().lanes(dtype.name)                # a constant of the compiled code

           def kernel(args, part, parts):
               x, out, n, factor = pointer(args[0], dtype), pointer(args[1], dtype), args[2], float_bits(args[3])
               low, high = n * part // parts, n * (part + 1) // parts
               whole = low + (high - low) // L * L
               for i in range(low, whole, L):
                   store(out, i, factor * load(x, i, L))
               if whole < high:
                   rest = first(high - whole, L)
                   store_masked(out, whole, factor * load_masked(x, whole, rest), rest)

           return kernel

   Helpers are functions with `@helper` (jit/helper.py); generated source is fine (exec). See jit/vector.py for
   the operators and functions on vectors. No Python exceptions: indexing pointers, arithmetic, loops, calls.

2. The slot is a Python function that checks nothing the contract promises and costs as little as it can:

       # scale.py
       def _make(dtype):
           def make():                                 # runs only if the code is in no cache
               from kernels.numba_cpu.jit import scale, vector
               return scale.scale(getattr(vector, dtype))
           return make

       def scale(x, factor, out):
           dtype = "float32" if x.itemsize == 4 else "float64"  # x.dtype.name takes 2 us
           kernel = compile_kernel(f"scale/{dtype}", _make(dtype))
           launch("scale", kernel, parts_for(x.size), x, out, x.size, float(factor))

   backend.py names the slots that have machine code.

3. A row in effects.py, by the beginning of the kernel's name: which arguments it writes, and how many operations it
   takes. A plan needs it to show them, to fuse what lies around, and to read a step's inputs where they lie.

       "scale": _writes(1, flop=1),

   - `compiler.compile_kernel(name, make)` gives the address; `name` must tell apart everything that specialises
     the code (dtype, formula text, layout). It is a dictionary look-up when warm.
   - `executor.launch(name, kernel, parts, *arguments)` runs it now (about 0.4 us) and adds it to the plan that the
     thread records. Arguments: int, float (read with `float_bits`; always a float64), array (its address; kept
     alive by the plan). At most `executor.LIMIT`; for more, put addresses into an int64 array and pass that and the
     arrays to `executor.emit(kernel, parts, words, keep, name)`, where `keep` holds them all.
   - `threads.parts_for(work, least)`: 1 for small work, else the number of threads.
   - Strides are bytes in NumPy: pass `s // x.itemsize`, and use x[i * stride] on pointers.

4. Sizes known only at run time are arguments, not part of the name, or every new shape would compile.

Warm start: no Numba import, about 0.2 ms per kernel. Objects lie in `compiler.cache_folder()`; NANONET_CACHE_DIR moves
it, NANONET_CPU forces another processor (host.KNOWN), NANONET_NUM_THREADS the number of threads.
"""
