// Pooling of images (n, h, w, c): a thread for each place and PACK channels of what is written.
//
// rows, columns: start, stop and divisor of the windows along an axis; after them, for each place along the axis, the
// first window that holds it and the one after the last.

#ifndef PACK
#define PACK 1  // channels that are read and written together
#endif

struct __align__(sizeof(real) * PACK) Reals {
    real v[PACK];
};
struct __align__(4 * PACK) Ints {
    int v[PACK];
};

// Of an array (n, height, width, packs * PACK) that is written.
struct Place {
    int64 image, at;  // at: of the first of the channels, in packs
    int y, x, channel;

    __device__ __forceinline__ Place(int64 at, int height, int width, int packs) : at(at) {
        int64 row = quotient(at, packs), line = quotient(row, width);
        channel = int(at - row * packs) * PACK;
        x = int(row - line * width);
        image = quotient(line, height);
        y = int(line - image * height);
    }
};

#define PLACES(count)                                                                     \
    for (int64 at = int64(blockIdx.x) * blockDim.x + threadIdx.x; at < (count); at += int64(gridDim.x) * blockDim.x)

__device__ __forceinline__ Reals load(const real* x) { return *reinterpret_cast<const Reals*>(x); }

extern "C" __global__ void max_pool(const real* x, const int64* rows, const int64* columns, real* out, int* index,
                                    int64 count, int w, int oh, int ow, int packs, int64 image_step, int64 row_step,
                                    int64 column_step, int64 channel_step) {
    PLACES(count) {
        Place place(at, oh, ow, packs);
        const real* image = x + place.image * image_step + place.channel * channel_step;
        int top = int(rows[3 * place.y]), bottom = int(rows[3 * place.y + 1]);
        int left = int(columns[3 * place.x]), right = int(columns[3 * place.x + 1]);
        Reals best;
        Ints found;
#pragma unroll
        for (int k = 0; k < PACK; k++) best.v[k] = real(-INFINITY), found.v[k] = top * w + left;
        for (int y = top; y < bottom; y++)
#pragma unroll 4
            for (int z = left; z < right; z++) {
                Reals here = load(image + y * row_step + z * column_step);
#pragma unroll
                for (int k = 0; k < PACK; k++) {
                    real v = here.v[k], b = best.v[k];
                    if (v > b || (v != v && b == b)) best.v[k] = v, found.v[k] = y * w + z;
                }
            }
        reinterpret_cast<Reals*>(out)[at] = best;
        reinterpret_cast<Ints*>(index)[at] = found;
    }
}

// g and index are contiguous.
extern "C" __global__ void max_pool_backward(const real* g, const int* index, const int64* above, const int64* beside,
                                             real* out, int64 count, int h, int w, int oh, int ow, int packs) {
    PLACES(count) {
        Place place(at, h, w, packs);
        int own = place.y * w + place.x;
        Reals sum;
#pragma unroll
        for (int k = 0; k < PACK; k++) sum.v[k] = 0;
        int last = int(above[2 * place.y + 1]), end = int(beside[2 * place.x + 1]);
        for (int i = int(above[2 * place.y]); i < last; i++)
            for (int j = int(beside[2 * place.x]); j < end; j++) {
                int64 from = ((place.image * oh + i) * ow + j) * packs + place.channel / PACK;
                Ints found = reinterpret_cast<const Ints*>(index)[from];
                Reals here = reinterpret_cast<const Reals*>(g)[from];
#pragma unroll
                for (int k = 0; k < PACK; k++)
                    if (found.v[k] == own) sum.v[k] += here.v[k];
            }
        reinterpret_cast<Reals*>(out)[at] = sum;
    }
}

// The threads of a column of the block share a window.
extern "C" __global__ void __launch_bounds__(256)
avg_pool(const real* x, const int64* rows, const int64* columns, real* out, int64 count, int oh, int ow, int packs,
         int64 image_step, int64 row_step, int64 column_step, int64 channel_step) {
    int64 at = int64(blockIdx.x) * blockDim.x + threadIdx.x;
    Place place(at < count ? at : count - 1, oh, ow, packs);
    const real* image = x + place.image * image_step + place.channel * channel_step;
    int top = int(rows[3 * place.y]), left = int(columns[3 * place.x]);
    int tall = int(rows[3 * place.y + 1]) - top, across = int(columns[3 * place.x + 1]) - left;
    wide sum[PACK];
#pragma unroll
    for (int k = 0; k < PACK; k++) sum[k] = 0;
    if (across > 0) {
#pragma unroll 4
        for (int i = threadIdx.y; i < tall * across; i += blockDim.y) {
            int y = i / across, z = i - y * across;
            Reals here = load(image + (top + y) * row_step + (left + z) * column_step);
#pragma unroll
            for (int k = 0; k < PACK; k++) sum[k] += wide(here.v[k]);
        }
    }
    real divisor = real(rows[3 * place.y + 2] * columns[3 * place.x + 2]);
    Reals mean;
#pragma unroll
    for (int k = 0; k < PACK; k++) {
        wide whole = sum[k];
        if (blockDim.y > 1) whole = tree_reduce<Sum>(whole, threadIdx.y, blockDim.y, blockDim.x);
        mean.v[k] = real(whole) / divisor;
    }
    if (threadIdx.y == 0 && at < count) reinterpret_cast<Reals*>(out)[at] = mean;
}

// g is contiguous.
extern "C" __global__ void avg_pool_backward(const real* g, const int64* rows, const int64* columns,
                                             const int64* above, const int64* beside, real* out, int64 count, int h,
                                             int w, int oh, int ow, int packs) {
    PLACES(count) {
        Place place(at, h, w, packs);
        Reals sum;
#pragma unroll
        for (int k = 0; k < PACK; k++) sum.v[k] = 0;
        int last = int(above[2 * place.y + 1]), end = int(beside[2 * place.x + 1]);
        for (int i = int(above[2 * place.y]); i < last; i++) {
            if (place.y < rows[3 * i] || place.y >= rows[3 * i + 1]) continue;
            for (int j = int(beside[2 * place.x]); j < end; j++) {
                if (place.x < columns[3 * j] || place.x >= columns[3 * j + 1]) continue;
                Reals here = reinterpret_cast<const Reals*>(g)[((place.image * oh + i) * ow + j) * packs +
                                                               place.channel / PACK];
                real divisor = real(rows[3 * i + 2] * columns[3 * j + 2]);
#pragma unroll
                for (int k = 0; k < PACK; k++) sum.v[k] += here.v[k] / divisor;
            }
        }
        reinterpret_cast<Reals*>(out)[at] = sum;
    }
}
