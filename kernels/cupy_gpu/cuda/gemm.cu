// Products of matrices, and convolutions as such: out(m, n) = activation(bias(n) + sum over k of a(m, k) b(k, n)).
//
//               TILE_N                 A block makes one tile of out. Slices of a and b, TILE_K deep, pass through
//            +---------+  TILE_K       STAGES buffers in shared memory; copies into some of them are under way while
//   TILE_K   |    b    |               the threads multiply what is in another.
//  +-------+ +---------+
//  |   a   | |   out   |  TILE_M       If k is cut into parts, a block sums one of them into `parts`, and `finish` adds
//  +-------+ +---------+               these up in their order.
//
// Macros: KIND, see operands.cuh. TENSOR: 0, sums by plain multiplication; else on tensor cores, of operands rounded to
// tf32 (TF32) or bf16 (BF16). A_ALONG_K, B_ALONG_K: neighbouring threads copy what follows along k, else along m or n.
// A_VECTOR, B_VECTOR: elements that are copied at once; they are aligned, and inside or outside together. THREAD_M,
// THREAD_N: the part of the tile of a thread (TENSOR 0) or a warp. SLICES: so many groups of threads share each TILE_K.
// BLOCKS: that a multiprocessor should have room for. ACTIVATED(kind, z): the activation with that number, of z.
#include "async.cuh"
#include "mma.cuh"
#include "numbers.cuh"
#include "operands.cuh"
#include "epilogue.cuh"

struct alignas(16) Wide {
    real values[WIDE];
};

// How a slice of an operand lies in shared memory, EXTENT elements along m or n: as [k][m], or as [m][k] where tensor
// cores read what was copied along k. Rows are padded so that the threads of a warp find them in different banks.
template <int EXTENT, bool ALONG_K> struct Layout {
    static constexpr bool K_INSIDE = ALONG_K && TENSOR;
    static constexpr int ROW = K_INSIDE ? TILE_K + 4 : EXTENT + (TENSOR ? 8 : WIDE);
    static constexpr int SIZE = ROW * (K_INSIDE ? EXTENT : TILE_K);

    __device__ __forceinline__ static constexpr int at(int side, int k) {
        return K_INSIDE ? side * ROW + k : k * ROW + side;
    }
};

// Copies slices of an operand; every thread copies the same elements of each.
template <typename Operand, int EXTENT, bool ALONG_K, int VECTOR> struct Loader {
    using Placed = Layout<EXTENT, ALONG_K>;
    static constexpr int CHUNKS = (ALONG_K ? TILE_K : EXTENT) / VECTOR;  // of a row as it is copied
    static constexpr int LANES = ALONG_K ? (CHUNKS < 8 ? CHUNKS : 8) : CHUNKS;
    static constexpr int ROWS = THREADS / LANES;  // that the block copies at once
    static constexpr int SIDES = ALONG_K ? EXTENT / ROWS : 1, DEPTHS = ALONG_K ? CHUNKS / LANES : TILE_K / ROWS;
    static_assert(SIDES > 0 && DEPTHS > 0 && (VECTOR == 1 || Placed::K_INSIDE == ALONG_K));

    const real* data;
    Spot sides[SIDES];
    uint32 inside = 0;

    __device__ __forceinline__ static int side(int i) {
        return ALONG_K ? int(threadIdx.x) / LANES + i * ROWS : int(threadIdx.x) % LANES * VECTOR;
    }
    __device__ __forceinline__ static int depth(int i) {
        return ALONG_K ? (int(threadIdx.x) % LANES + i * LANES) * VECTOR : int(threadIdx.x) / LANES + i * ROWS;
    }
    __device__ __forceinline__ Loader(const Task& task, const real* data, int first, int end) : data(data) {
#pragma unroll
        for (int i = 0; i < SIDES; i++) {
            sides[i] = Operand::side(task, first + side(i));
            inside |= uint32(first + side(i) < end) << i;
        }
    }
    __device__ __forceinline__ void load(const Task& task, real* slice, int first, int end) const {
#pragma unroll
        for (int j = 0; j < DEPTHS; j++) {
            Spot along = Operand::along(task, first + depth(j));
            bool within = first + depth(j) < end;
#pragma unroll
            for (int i = 0; i < SIDES; i++) {
                bool valid = within && (inside >> i & 1u) && Operand::holds(task, sides[i], along);
                const real* from = valid ? data + (sides[i].offset + along.offset) : data;
                copy_async<VECTOR * sizeof(real)>(slice + Placed::at(side(i), depth(j)), from, valid);
            }
        }
    }
};

using PlacedA = Layout<TILE_M, A_ALONG_K>;
using PlacedB = Layout<TILE_N, B_ALONG_K>;

#if TENSOR
// The sums of a warp, in the layout of mma.cuh. The elements of a step of 16 along k are taken in an order that lets
// bf16 be read like tf32: it is the same for a and b.
struct Sums {
    static constexpr int ROWS = THREAD_M / 16, COLUMNS = THREAD_N / 8, PIECE = 2;
    float sums[ROWS][COLUMNS][4] = {};
    int lane = threadIdx.x % WARP, m, n;

    __device__ __forceinline__ Sums() {
        int warp = threadIdx.x / WARP;
        m = warp / (TILE_N / THREAD_N) * THREAD_M;
        n = warp % (TILE_N / THREAD_N) * THREAD_N;
    }
    __device__ __forceinline__ void read_a(uint32 (&words)[4], const float* slice, int side, int k) const {
        if constexpr (PlacedA::K_INSIDE) {
            load_rows(words, slice + PlacedA::at(side + lane % 16, k + lane / 16 * 4));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                words[i] = __float_as_uint(slice[PlacedA::at(side + lane / 4 + i % 2 * 8, k + lane % 4 + i / 2 * 4)]);
        }
    }
    // Two blocks of 8 columns.
    __device__ __forceinline__ void read_b(uint32 (&words)[4], const float* slice, int side, int k) const {
        if constexpr (PlacedB::K_INSIDE) {
            load_rows(words, slice + PlacedB::at(side + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 4));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                words[i] = __float_as_uint(slice[PlacedB::at(side + lane / 4 + i / 2 * 8, k + lane % 4 + i % 2 * 4)]);
        }
    }
    __device__ __forceinline__ void add(const float* a_slice, const float* b_slice) {
#pragma unroll 2
        for (int k = 0; k < TILE_K; k += TENSOR == TF32 ? 8 : 16) {
            uint32 a[ROWS][4], b[COLUMNS][2];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                uint32 words[4];
                read_a(words, a_slice, m + i * 16, k);
                round(a[i], words, [&](uint32(&more)[4]) { read_a(more, a_slice, m + i * 16, k + 8); });
            }
#pragma unroll
            for (int j = 0; j < COLUMNS; j += 2) {
                uint32 words[4], both[4];
                read_b(words, b_slice, n + j * 8, k);
                round_b(both, words, [&](uint32(&more)[4]) { read_b(more, b_slice, n + j * 8, k + 8); });
                b[j][0] = both[0], b[j][1] = both[1], b[j + 1][0] = both[2], b[j + 1][1] = both[3];
            }
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) {
                    if constexpr (TENSOR == TF32) mma_tf32(sums[i][j], a[i], b[j]);
                    if constexpr (TENSOR == BF16) mma_bf16(sums[i][j], a[i], b[j]);
                }
        }
    }
    // Operands of a step from floats; bf16 takes the next 8 along k too, element t + 8 i of k as pair (2t, 2t + 1).
    template <typename More>
    __device__ __forceinline__ static void round(uint32 (&to)[4], const uint32 (&words)[4], More more) {
        if constexpr (TENSOR == TF32) {
#pragma unroll
            for (int i = 0; i < 4; i++) to[i] = tf32(__uint_as_float(words[i]));
        } else {
            uint32 next[4];
            more(next);
            to[0] = pair(words[0], words[2]), to[1] = pair(words[1], words[3]);
            to[2] = pair(next[0], next[2]), to[3] = pair(next[1], next[3]);
        }
    }
    template <typename More>
    __device__ __forceinline__ static void round_b(uint32 (&to)[4], const uint32 (&words)[4], More more) {
        if constexpr (TENSOR == TF32) {
            round(to, words, more);
        } else {
            uint32 next[4];
            more(next);
            to[0] = pair(words[0], words[1]), to[1] = pair(next[0], next[1]);
            to[2] = pair(words[2], words[3]), to[3] = pair(next[2], next[3]);
        }
    }
    __device__ __forceinline__ static uint32 pair(uint32 low, uint32 high) {
        return bf16_pair(__uint_as_float(low), __uint_as_float(high));
    }
    // store(row, column, values) for all pieces of a row.
    template <typename Store> __device__ __forceinline__ void each(Store store) const {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float values[2] = {sums[i][j][2 * half], sums[i][j][2 * half + 1]};
                    store(m + i * 16 + half * 8 + lane / 4, n + j * 8 + lane % 4 * 2, values);
                }
    }
};
#else
// The sums of a thread: pieces of 4 x 4, TILE / (THREAD / 4) apart. The threads of a warp are 4 x 8.
struct Sums {
    static constexpr int ACROSS = TILE_N / THREAD_N, DOWN = TILE_M / THREAD_M, PER_SLICE = TILE_K / SLICES;
    static constexpr int PIECE = 4, UNROLL = THREAD_M * THREAD_N < 64 ? PER_SLICE : 2;  // with 64, registers are scarce
    static constexpr int APART_M = 4 * DOWN, APART_N = 4 * ACROSS;
    static_assert(ACROSS % 8 == 0 && DOWN % 4 == 0 && THREADS == ACROSS * DOWN * SLICES);
    real sums[THREAD_M][THREAD_N] = {};
    int slice, m, n;

    __device__ __forceinline__ Sums() {
        int lane = threadIdx.x % WARP, warp = threadIdx.x % (ACROSS * DOWN) / WARP;
        slice = threadIdx.x / (ACROSS * DOWN);
        m = 4 * (warp / (ACROSS / 8) * 4 + lane / 8);
        n = 4 * (warp % (ACROSS / 8) * 8 + lane % 8);
    }
    template <int COUNT, int APART>
    __device__ __forceinline__ static void read(real (&to)[COUNT], const real* from) {
#pragma unroll
        for (int i = 0; i < COUNT; i += WIDE) {
            Wide wide = *reinterpret_cast<const Wide*>(from + i / 4 * APART + i % 4);
#pragma unroll
            for (int j = 0; j < WIDE; j++) to[i + j] = wide.values[j];
        }
    }
    __device__ __forceinline__ void add(const real* a_slice, const real* b_slice) {
#pragma unroll UNROLL
        for (int i = 0; i < PER_SLICE; i++) {
            int k = slice * PER_SLICE + i;
            real a[THREAD_M], b[THREAD_N];
            read<THREAD_M, APART_M>(a, a_slice + PlacedA::at(m, k));
            read<THREAD_N, APART_N>(b, b_slice + PlacedB::at(n, k));
#pragma unroll
            for (int row = 0; row < THREAD_M; row++)
#pragma unroll
                for (int column = 0; column < THREAD_N; column++) sums[row][column] += a[row] * b[column];
        }
    }
    template <typename Store> __device__ __forceinline__ void each(Store store) const {
#pragma unroll
        for (int row = 0; row < THREAD_M; row++)
#pragma unroll
            for (int column = 0; column < THREAD_N; column += 4) {
                real values[4];
#pragma unroll
                for (int i = 0; i < 4; i++) values[i] = sums[row][column + i];
                store(m + row / 4 * APART_M + row % 4, n + column / 4 * APART_N, values);
            }
    }
};
#endif

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    gemm(const real* a, const real* b, const real* bias, real* out, real* parts, const Task task) {
    DYNAMIC_SHARED(real, shared);
    static_assert(SHARED >= STAGES * (PlacedA::SIZE + PlacedB::SIZE) * sizeof(real));
    real *a_slices = shared, *b_slices = shared + STAGES * PlacedA::SIZE;

    const Part mine(task, blockIdx.x);
    a += mine.outer * task.a_outer + mine.inner * task.a_inner, b += mine.outer * task.b_outer + mine.inner * task.b_inner;
    Loader<A, TILE_M, A_ALONG_K, A_VECTOR> load_a(task, a, mine.first_m, task.m);
    Loader<B, TILE_N, B_ALONG_K, B_VECTOR> load_b(task, b, mine.first_n, task.n);
    int steps = (mine.end - mine.k + TILE_K - 1) / TILE_K;
    auto load = [&](int step) {
        if (step < steps) {
            int stage = step % STAGES;
            load_a.load(task, a_slices + stage * PlacedA::SIZE, mine.k + step * TILE_K, mine.end);
            load_b.load(task, b_slices + stage * PlacedB::SIZE, mine.k + step * TILE_K, mine.end);
        }
        commit_copies();
    };
    Sums sums;
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) load(step);
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        load(step + STAGES - 1);
        sums.add(a_slices + step % STAGES * PlacedA::SIZE, b_slices + step % STAGES * PlacedB::SIZE);
    }

    const Epilogue epilogue(task, mine, bias, out, parts);
    auto store = [&](int row, int column, const real (&values)[Sums::PIECE]) { epilogue.store(row, column, values); };
#if SLICES > 1
    static_assert(SHARED >= SLICES * TILE_M * TILE_N * sizeof(real));
    wait_for_copies<0>();
    __syncthreads();
    sums.each([&](int row, int column, const real (&values)[Sums::PIECE]) {
        write(shared + (sums.slice * TILE_M + row) * TILE_N + column, values, TILE_N, true);
    });
    __syncthreads();
    for (int at = threadIdx.x * Sums::PIECE; at < TILE_M * TILE_N; at += THREADS * Sums::PIECE) {
        real values[Sums::PIECE] = {};
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++)
#pragma unroll
            for (int i = 0; i < Sums::PIECE; i++) values[i] += shared[slice * TILE_M * TILE_N + at + i];
        store(at / TILE_N, at % TILE_N, values);
    }
#else
    sums.each(store);
#endif
}
