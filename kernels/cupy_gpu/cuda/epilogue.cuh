// What gemm.cu and hopper.cu share: which part of which product a block makes, and what becomes of its sums.
//
// Macros: ACTIVATED(kind, z): the activation with that number, of z. ACTIVATION, SPLIT: which of them, and whether k is
// cut, where that is known beforehand.
#ifndef ACTIVATION
#define ACTIVATION task.activation
#define SPLIT (task.splits > 1)
#endif

constexpr int WIDE = 16 / sizeof(real);  // elements of 16 bytes

// One tile of one product, over one of the parts of k.
struct Part {
    uint32 part, product;
    int first_m, first_n, k, end;
    int64 outer, inner;

    // Tiles of 8 rows of tiles one below the other follow each other, so that they find b in the cache.
    __device__ __forceinline__ Part(const Task& task, uint32 index) {
        uint32 down = (task.m + TILE_M - 1) / TILE_M, across = (task.n + TILE_N - 1) / TILE_N, tiles = down * across;
        uint32 tile = index % tiles, rest = index / tiles;
        part = rest % task.splits, product = rest / task.splits;
        uint32 band = tile / (8 * across), rows = min(8u, down - band * 8);
        first_m = (band * 8 + tile % (8 * across) % rows) * TILE_M, first_n = tile % (8 * across) / rows * TILE_N;
        k = part * task.span, end = min(task.k, k + task.span);
        outer = product / task.inner, inner = product % task.inner;
    }
};

__device__ __forceinline__ real activated(int activation, real z) { return ACTIVATED(activation, z); }

__device__ __forceinline__ int64 out_row(const Task& task, int row) {
    return task.spread ? task.to.place(task.places, row) : row * task.out_row;
}

// COUNT values that follow each other, written at once if they are all inside.
template <int COUNT> __device__ __forceinline__ void write(real* to, const real (&values)[COUNT], int room, bool wide) {
    constexpr int EACH = COUNT < WIDE ? COUNT : WIDE;
    struct alignas(EACH * sizeof(real)) Piece {
        real values[EACH];
    };
    if (wide && room >= COUNT) {
#pragma unroll
        for (int i = 0; i < COUNT; i += EACH) {
            Piece piece;
#pragma unroll
            for (int j = 0; j < EACH; j++) piece.values[j] = values[i + j];
            *reinterpret_cast<Piece*>(to + i) = piece;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if (i < room) to[i] = values[i];
}

// Writes what a block has summed: to `parts` if k is cut, else with bias and activation to `out`.
struct Epilogue {
    const Task& task;
    int first_m, first_n;
    bool wide;
    const real* bias;
    real *out, *parts;

    __device__ __forceinline__ Epilogue(const Task& task, const Part& at, const real* bias, real* out, real* parts)
        : task(task), first_m(at.first_m), first_n(at.first_n), wide(SPLIT ? task.n % WIDE == 0 : task.wide),
          bias(bias ? bias + (at.inner * task.bias_inner + first_n * task.bias_n) : bias),
          out(out + (at.outer * task.out_outer + at.inner * task.out_inner + first_n)),
          parts(SPLIT ? parts + (int64(at.part) * task.batch + at.product) * task.m * task.n + first_n : parts) {}

    // Whether all columns of the tile are inside, and may be written 16 bytes at a time.
    __device__ __forceinline__ bool whole() const { return wide && first_n + TILE_N <= task.n; }
    // Where column 0 of a row of the tile goes; null if it is outside.
    __device__ __forceinline__ real* row(int row) const {
        row += first_m;
        if (row >= task.m) return nullptr;
        return SPLIT ? parts + int64(row) * task.n : out + out_row(task, row);
    }
    // Sums of columns column, column + 1, ... of a row; all_inside: the tile is whole.
    template <int COUNT>
    __device__ __forceinline__ void store(real* row, int column, const real (&values)[COUNT], bool all_inside) const {
        int room = all_inside ? COUNT : task.n - first_n - column;
        if (room <= 0) return;
        real results[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            results[i] = values[i];
            if (!SPLIT) {
                real z = values[i] + (bias && i < room ? bias[(column + i) * task.bias_n] : real(0));
                results[i] = activated(ACTIVATION, z);
            }
        }
        write(row + column, results, room, all_inside || wide);
    }
    template <int COUNT> __device__ __forceinline__ void store(int row, int column, const real (&values)[COUNT]) const {
        real* to = this->row(row);
        if (to) store(to, column, values, false);
    }
};

// The parts of k of every element, added up.
extern "C" __global__ void finish(const real* parts, const real* bias, real* out, const Task task) {
    int64 each = int64(task.m) * task.n, all = each * task.batch, step = int64(gridDim.x) * blockDim.x;
    for (int64 at = int64(blockIdx.x) * blockDim.x + threadIdx.x; at < all; at += step) {
        int64 product = quotient(at, each), rest = at - product * each;
        int64 outer = quotient(product, task.inner), inner = product - outer * task.inner;
        int row = int(quotient(rest, task.n)), column = int(rest - int64(row) * task.n);
        real sum = 0;
#pragma unroll 8
        for (int part = 0; part < task.splits; part++) sum += parts[part * all + at];
        if (bias) sum += bias[inner * task.bias_inner + column * task.bias_n];
        out[outer * task.out_outer + inner * task.out_inner + out_row(task, row) + column] =
            activated(ACTIVATION, sum);
    }
}
