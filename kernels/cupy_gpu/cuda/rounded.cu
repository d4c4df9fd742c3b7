// Operands of hopper.cu: an array of float32 rounded to bf16 or tf32, in an order of its own. Tensor cores of sm_90 take
// bf16 as such, and cut tf32 off where it should be rounded.
//
// Macros: TENSOR: TF32 or BF16. VECTOR: four elements of the last axis are side by side and aligned.
#include "image.cuh"
#include "mma.cuh"
#include "numbers.cuh"

// AXES in hopper.py is the same table. The last axis of the result has `width` >= sizes[4] numbers, the last of them 0.
struct Axes {
    int64 from[5], to[5];  // strides
    Divisor divisors[5];   // by sizes, the last one by width / 4
    int sizes[5], width, blocks;
};
static_assert(sizeof(Axes) == 168);

struct alignas(4 * sizeof(number)) Four {
    number values[4];
};

__device__ __forceinline__ Four rounded_of(const float (&x)[4]) {
    Four four;
#if TENSOR == BF16
    uint32 low = bf16_pair(x[0], x[1]), high = bf16_pair(x[2], x[3]);
    four = {number(low), number(low >> 16), number(high), number(high >> 16)};
#else
    four = {__uint_as_float(tf32(x[0])), __uint_as_float(tf32(x[1])), __uint_as_float(tf32(x[2])),
            __uint_as_float(tf32(x[3]))};
#endif
    return four;
}

// In the order of the result, which has no gaps; `all` times four numbers.
extern "C" __global__ void rounded(const float* from, number* to, int64 all, const Axes axes) {
    int64 step = int64(gridDim.x) * blockDim.x;
    for (int64 index = int64(blockIdx.x) * blockDim.x + threadIdx.x; index < all; index += step) {
        uint32 rest = uint32(index);
        int64 offset = 0;
        int last = 0;
#pragma unroll
        for (int axis = 4; axis >= 0; axis--) {
            uint32 quotient = axis > 0 ? axes.divisors[axis].quotient(rest) : 0;
            int place = int(rest - quotient * axes.divisors[axis].divisor);
            if (axis == 4) last = place *= 4;
            offset += place * axes.from[axis];
            rest = quotient;
        }
        const float* x = from + offset;
        float values[4] = {};
        if (VECTOR && last + 4 <= axes.sizes[4]) {
            float4 four = *reinterpret_cast<const float4*>(x);
            values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (last + i < axes.sizes[4]) values[i] = x[i * axes.from[4]];
        }
        *reinterpret_cast<Four*>(to + 4 * index) = rounded_of(values);
    }
}

// Axis 3 is the inner one of the array, axis 4 that of the result: by blocks of 32 x 8 threads, 32 x 32 elements each.
extern "C" __global__ void turned(const float* from, number* to, const Axes axes) {
    __shared__ float tile[32][33];
    uint32 across = (axes.width + 31) / 32, down = (axes.sizes[3] + 31) / 32;
    for (uint32 block = blockIdx.x; block < uint32(axes.blocks); block += gridDim.x) {
        uint32 column = block % across * 32, rest = block / across, row = rest % down * 32;
        rest /= down;
        int64 source = 0, target = 0;
#pragma unroll
        for (int axis = 2; axis >= 0; axis--) {
            uint32 quotient = axis > 0 ? axes.divisors[axis].quotient(rest) : 0;
            int place = int(rest - quotient * axes.divisors[axis].divisor);
            source += place * axes.from[axis], target += place * axes.to[axis];
            rest = quotient;
        }
        __syncthreads();
        for (int i = threadIdx.y; i < 32; i += 8) {
            int r = row + threadIdx.x, c = column + i;
            bool inside = r < axes.sizes[3] && c < axes.sizes[4];
            tile[i][threadIdx.x] = inside ? from[source + r * axes.from[3] + c * axes.from[4]] : 0.f;
        }
        __syncthreads();
        int r = row + threadIdx.y * 4 + threadIdx.x / 8, c = threadIdx.x % 8 * 4;
        if (r < axes.sizes[3] && int(column) + c < axes.width) {
            float values[4];
#pragma unroll
            for (int i = 0; i < 4; i++) values[i] = tile[c + i][r - row];
            *reinterpret_cast<Four*>(to + (target + r * axes.to[3] + column + c)) = rounded_of(values);
        }
    }
}
