// The columns of a matrix, by blocks of (columns, rows) threads and chunks of rows: see columns.py.

// Rows that a thread loads side by side, of which each takes so many bytes.
#define EACH(bytes) ((bytes) > 4 ? 4 : 8)

// What this thread walks: every blockDim.y-th row of the block's chunk, in one column.
struct Walk {
    int64 column, start, stop;

    __device__ __forceinline__ Walk(int64 rows, int64 chunk)
        : column(int64(blockIdx.x) * blockDim.x + threadIdx.x), start(blockIdx.y * chunk + threadIdx.y),
          stop(blockIdx.y * chunk + chunk < rows ? blockIdx.y * chunk + chunk : rows) {}

    // use(row, load(row)) for each row; several are loaded before the first is used.
    template <typename L, typename U> __device__ __forceinline__ void each(L load, U use) const {
        constexpr int many = EACH(sizeof(load(0)));
        for (int64 i = start; i < stop; i += many * blockDim.y) {
            decltype(load(i)) part[many];
#pragma unroll
            for (int k = 0; k < many; k++)
                if (i + k * blockDim.y < stop) part[k] = load(i + k * blockDim.y);
#pragma unroll
            for (int k = 0; k < many; k++)
                if (i + k * blockDim.y < stop) use(i + k * blockDim.y, part[k]);
        }
    }
};

__device__ __forceinline__ wide down_columns(wide value) {
    return tree_reduce<Sum>(value, threadIdx.y, blockDim.y, blockDim.x);
}

struct Sums {
    wide first, second;
};

struct Pair {
    real g, x;
};

// Threads beyond the last column walk it once more, and write nothing.
#define WALK(rows)                             \
    Walk walk(rows, chunk);                    \
    bool inside = walk.column < width;         \
    if (!inside) walk.column = width - 1, walk.stop = walk.start;

// The sum of `chunks` partial sums; `chunk` is their number, too.
__device__ __forceinline__ Sums summed(const Walk& walk, const Sums* partial, int64 width) {
    Sums sums = {0, 0};
    walk.each([&](int64 i) { return partial[i * width + walk.column]; },
              [&](int64, Sums part) {
                  sums.first += part.first;
                  sums.second += part.second;
              });
    return {down_columns(sums.first), down_columns(sums.second)};
}
