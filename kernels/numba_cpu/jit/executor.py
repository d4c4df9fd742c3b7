"""The loop that walks a plan, and the workers that help it.

A pool is 64 words, one cache line (8 words) per field, so that spinning readers do not disturb writers:

    OWNER     1 while a caller uses the pool
    TICKET    job number << 32 | parts << 16 | next part to take
    JOB       kernel address, argument block address
    LEFT      parts not finished yet
    SIGNAL    counts wake-ups; sleepers sleep on it
    SLEEPERS  how many workers sleep
    STOP      1 when the workers shall leave

A part is taken by advancing TICKET with compare-and-swap. JOB is written only while no part of any job is left, so a
worker whose swap succeeds has read the JOB that belongs to its ticket.
"""

from kernels.numba_cpu.jit import system
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import address as address_of

OWNER, TICKET, JOB, LEFT, SIGNAL, SLEEPERS, STOP = (64 * i for i in range(7))  # bytes
# Waking a sleeper costs the caller 2 to 100 us, depending on the system. So an idle worker spins for a few tenths of a
# millisecond, then naps and looks around for some tens of milliseconds, and only then sleeps until it is woken.
SPIN = 10000
NAPS = 200
MOST = 0xFFFF  # parts that a ticket can count
PATIENCE = 20000  # turns before a waiting caller offers its core to others


def _helpers():
    load, store, add, swap_if = system.atomic_load, system.atomic_store, system.atomic_add, system.atomic_swap_if

    @helper
    def take_part(pool):
        """Carry out one part of the pool's job; whether there was one."""
        ticket = load(pool + TICKET)
        part, parts = ticket & 0xFFFF, (ticket >> 16) & 0xFFFF
        if part >= parts:
            return False
        kernel, args = load(pool + JOB), load(pool + JOB + 8)
        if swap_if(pool + TICKET, ticket, ticket + 1):
            system.call(kernel, args, part, parts)
            add(pool + LEFT, -1)
        return True

    @helper
    def share(pool, kernel, args, parts):
        """Carry out a job together with the workers. The caller owns the pool, and takes part 0 itself: so a core meets
        in its own cache the share of an array that it had in the instruction before."""
        store(pool + JOB, kernel)
        store(pool + JOB + 8, args)
        store(pool + LEFT, parts)
        job = (load(pool + TICKET) >> 32) + 1
        store(pool + TICKET, ((job & 0x7FFFFFFF) << 32) | (parts << 16) | 1)
        if load(pool + SLEEPERS) > 0:
            add(pool + SIGNAL, 1)
            system.wake(pool + SIGNAL)
        system.call(kernel, args, 0, parts)
        add(pool + LEFT, -1)
        while take_part(pool):
            pass
        turns = 0
        while load(pool + LEFT) > 0:
            system.pause()
            turns += 1
            if turns > PATIENCE:
                system.give_way()

    return take_part, share


def execute():
    """(code, words, times, stop, pool) -> repetitions done. See `kernels.numba_cpu.executor`."""
    _, share = _helpers()
    load, store, swap_if = system.atomic_load, system.atomic_store, system.atomic_swap_if

    def execute(code, words, times, stop, pool):
        mode = system.flush_denormals()
        owned = pool != 0 and swap_if(pool + OWNER, 0, 1)
        done = 0
        base = address_of(code)
        while done < times:
            at = 0
            while at < words:
                kernel, length, parts = code[at], code[at + 1], code[at + 2]
                args = base + 8 * (at + 3)
                if owned and 1 < parts <= MOST:
                    share(pool, kernel, args, parts)
                else:
                    for part in range(parts):
                        system.call(kernel, args, part, parts)
                at += length
            done += 1
            if stop != 0 and load(stop) != 0:
                break
        if owned:
            store(pool + OWNER, 0)
        system.restore_denormals(mode)
        return done

    return execute


def work():
    """(pool) -> 0: a worker's life, until STOP."""
    take_part, _ = _helpers()
    load, add = system.atomic_load, system.atomic_add

    def work(pool):
        mode = system.flush_denormals()
        idle = 0
        while load(pool + STOP) == 0:
            if take_part(pool):
                idle = 0
                continue
            idle += 1
            if idle < SPIN:
                system.pause()
                continue
            if idle < SPIN + NAPS:
                system.nap()
                continue
            signal = load(pool + SIGNAL)
            add(pool + SLEEPERS, 1)
            ticket = load(pool + TICKET)
            if (ticket & 0xFFFF) >= ((ticket >> 16) & 0xFFFF) and load(pool + STOP) == 0:
                system.sleep_while(pool + SIGNAL, signal)
            add(pool + SLEEPERS, -1)
            idle = 0
        system.restore_denormals(mode)
        return 0

    return work


def stop():
    """(pool) -> 0: tell the workers to leave."""
    store, add = system.atomic_store, system.atomic_add

    def stop(pool):
        store(pool + STOP, 1)
        add(pool + SIGNAL, 1)
        system.wake(pool + SIGNAL)
        return 0

    return stop
