// Rows added at their index, in their order: the places are sorted by their index, and stay in order where it is equal;
// then the first place of each index walks the others.

#define DIGIT 8  // bits of the index that are sorted by in one pass
#define BINS 256
#define TILE 2048  // places of a block

// Few places, by one block: each counts those that go before it.
extern "C" __global__ void __launch_bounds__(1024)
sort_few(const int64* index, int64* keys, int64* places, int64 n, int64 step) {
    __shared__ int64 all[1024];
    int me = threadIdx.x;
    if (me < n) all[me] = index[me * step];
    __syncthreads();
    if (me >= n) return;
    int64 own = all[me];
    int before = 0;
    for (int i = 0; i < n; i++) before += all[i] < own || (all[i] == own && i < me);
    keys[before] = own;
    places[before] = me;
}

// One pass by the digit at `shift` is count_digits, sum_counts, place_digits. `places` null: 0, 1, ...

// counts[digit][block]
extern "C" __global__ void __launch_bounds__(256)
count_digits(const int64* keys, int64* counts, int64 n, int64 step, int64 shift) {
    __shared__ int bins[BINS];
    bins[threadIdx.x] = 0;
    __syncthreads();
    int64 start = int64(blockIdx.x) * TILE;
    for (int k = threadIdx.x; k < TILE; k += 256)
        if (start + k < n) atomicAdd(&bins[(keys[(start + k) * step] >> shift) % BINS], 1);
    __syncthreads();
    counts[int64(threadIdx.x) * gridDim.x + blockIdx.x] = bins[threadIdx.x];
}

// counts[i] = the sum of those before it; by one block, of which each thread takes a run.
extern "C" __global__ void __launch_bounds__(1024) sum_counts(int64* counts, int64 size) {
    __shared__ int64 sums[1024];
    int64 run = (size + 1023) / 1024, start = threadIdx.x * run, stop = start + run < size ? start + run : size;
    int64 sum = 0;
    for (int64 i = start; i < stop; i++) sum += counts[i];
    sums[threadIdx.x] = sum;
    for (int step = 1; step < 1024; step *= 2) {
        __syncthreads();
        int64 before = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
        __syncthreads();
        sums[threadIdx.x] += before;
    }
    __syncthreads();
    sum = sums[threadIdx.x] - sum;
    for (int64 i = start; i < stop; i++) {
        int64 own = counts[i];
        counts[i] = sum;
        sum += own;
    }
}

extern "C" __global__ void __launch_bounds__(256)
place_digits(const int64* keys, const int64* places, const int64* counts, int64* new_keys, int64* new_places, int64 n,
             int64 step, int64 shift) {
    __shared__ int64 next[BINS];
    __shared__ int of_warp[8][BINS];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    next[threadIdx.x] = counts[int64(threadIdx.x) * gridDim.x + blockIdx.x];
    for (int k = 0; k < TILE; k += 256) {
        for (int w = 0; w < 8; w++) of_warp[w][threadIdx.x] = 0;
        __syncthreads();
        int64 at = int64(blockIdx.x) * TILE + k + threadIdx.x;
        int64 key = at < n ? keys[at * step] : 0;
        int digit = at < n ? int((key >> shift) % BINS) : BINS;  // one for what lies beyond the end
        unsigned equal = __match_any_sync(ALL_LANES, digit), before = equal & ((1u << lane) - 1);
        if (before == 0 && at < n) of_warp[warp][digit] = __popc(equal);
        __syncthreads();
        if (at < n) {
            int64 to = next[digit] + __popc(before);
            for (int w = 0; w < warp; w++) to += of_warp[w][digit];
            new_keys[to] = key;
            new_places[to] = places ? places[at] : at;
        }
        __syncthreads();
        for (int w = 0; w < 8; w++) next[threadIdx.x] += of_warp[w][threadIdx.x];
        __syncthreads();
    }
}

// The sorted places, and a column of the source.
struct Sorted {
    const int64 *keys, *places;
    int64 n;
    const real* source;
    int64 step;

    // Adds the rows of the places i, i + 1, ... of this key, up to N of them, all loaded before the first is added.
    // Whether there were N.
    template <int N> __device__ __forceinline__ bool add(int64 i, int64 key, real& sum) const {
        real part[N];
        bool mine[N];
#pragma unroll
        for (int k = 0; k < N; k++) {
            int64 place = i + k < n ? places[i + k] : 0;
            mine[k] = i + k < n && keys[i + k] == key;
            part[k] = mine[k] ? source[place * step] : real(0);
        }
#pragma unroll
        for (int k = 0; k < N; k++)
            if (mine[k]) sum += part[k];
        return mine[N - 1];
    }
};

// One thread for each sorted place and column: that at the first place of an index adds all its rows, in their order.
// source (n, columns) with a step along either axis.
extern "C" __global__ void add_sorted(const int64* keys, const int64* places, const real* source, real* out, int64 n,
                                      int64 columns, int64 row_step, int64 column_step) {
    int64 pace = int64(gridDim.x) * blockDim.x;
    for (int64 at = int64(blockIdx.x) * blockDim.x + threadIdx.x; at < n * columns; at += pace) {
        int64 i = quotient(at, columns), column = at - i * columns, key = keys[i];
        if (i > 0 && keys[i - 1] == key) continue;
        Sorted sorted = {keys, places, n, source + column * column_step, row_step};
        real sum = out[key * columns + column];
        if (sorted.add<4>(i, key, sum))
            for (i += 4; sorted.add<16>(i, key, sum); i += 16);
        out[key * columns + column] = sum;
    }
}
