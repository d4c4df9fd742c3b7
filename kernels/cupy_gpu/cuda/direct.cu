// Convolutions in groups of few channels, where nothing is gained by tiles: a thread for each result, neighbouring
// threads along the channels.
//
// Macros: VECTOR, channels of a thread: more than one if each channel is a group. TAPS_X: taps of a row of the kernel
// that a block of the weight gradient takes. ACTIVATED(kind, z): the activation with that number, of z.
#include "image.cuh"

// What a launch is told; DIRECT in direct.py is the same table. Result f takes `ins` channels, those of its group
// f / outs; their weights are at p, q, c (by, the steps), f % outs and f / outs.
struct Direct {
    Image image;
    Steps by, to;  // to: of out along its places; of the weight gradient's g
    int64 by_result, by_group, bias_step;
    int places, results, ins, outs, taps_y, taps_x, activation, parts, span, empty;
    Places of;
};
static_assert(sizeof(Direct) == 200);

struct alignas(VECTOR * sizeof(real)) Vector {
    real values[VECTOR];
};

__device__ __forceinline__ Vector read(const real* from) { return *reinterpret_cast<const Vector*>(from); }

extern "C" __global__ void correlate(const real* x, const real* w, const real* bias, real* out, const Direct task) {
    int64 index = int64(blockIdx.x) * blockDim.y + threadIdx.y;
    if (index >= task.places) return;
    Spot place = task.image.place(task.of, uint32(index));
    int64 to = task.to.place(task.of, uint32(index));
    for (int f = threadIdx.x * VECTOR; f < task.results; f += blockDim.x * VECTOR) {
        int group = f / task.outs;
        const real* from = x + place.offset + group * task.ins * task.image.channel;
        const real* weights = w + f % task.outs * task.by_result + group * task.by_group;
        Vector sums = {};
        for (int p = 0; p < task.taps_y; p++) {
            int dy = p * task.image.apart_y;
            if (uint32(place.y + dy) >= uint32(task.image.height)) continue;
            for (int q = 0; q < task.taps_x; q++) {
                int dx = q * task.image.apart_x;
                if (uint32(place.x + dx) >= uint32(task.image.width)) continue;
                const real* at = from + (dy * task.image.row + dx * task.image.column);
                const real* by = weights + (p * task.by.first + q * task.by.second);
                for (int c = 0; c < task.ins; c++) {
                    Vector a = read(at + c * task.image.channel), b = read(by + c * task.by.third);
#pragma unroll
                    for (int i = 0; i < VECTOR; i++) sums.values[i] += a.values[i] * b.values[i];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            real z = sums.values[i] + (bias ? bias[(f + i) * task.bias_step] : real(0));
            sums.values[i] = ACTIVATED(task.activation, z);
        }
        *reinterpret_cast<Vector*>(out + (to + f)) = sums;
    }
}

// parts[part, p, q, c, f]: sums over a part of the places, of x that result f takes at tap p, q of channel c, times g.
// Blocks of WARP x ROWS threads: a warp has one place and WARP results.
#define ROWS 8
extern "C" __global__ void weight_gradient(const real* x, const real* g, real* parts, const Direct task) {
    __shared__ real shared[ROWS][TAPS_X][WARP];
    uint32 block = blockIdx.x, across = (task.results + WARP - 1) / WARP;
    int f = block % across * WARP + threadIdx.x;
    block /= across;
    int c = block % task.ins;
    block /= task.ins;
    uint32 spans = (task.taps_x + TAPS_X - 1) / TAPS_X;
    int first = block % spans * TAPS_X;
    block /= spans;
    int p = block % task.taps_y, part = block / task.taps_y;
    int dy = p * task.image.apart_y, end = min(task.places, (part + 1) * task.span);
    real sums[TAPS_X] = {};
    if (f < task.results) {
        const real* from = x + (f / task.outs * task.ins + c) * task.image.channel + dy * task.image.row;
        for (int index = part * task.span + threadIdx.y; index < end; index += ROWS) {
            Spot place = task.image.place(task.of, index);
            if (uint32(place.y + dy) >= uint32(task.image.height)) continue;
            real factor = g[task.to.place(task.of, index) + f * task.by_result];
#pragma unroll
            for (int q = 0; q < TAPS_X; q++) {
                int dx = (first + q) * task.image.apart_x;
                if (uint32(place.x + dx) < uint32(task.image.width))
                    sums[q] += from[place.offset + dx * task.image.column] * factor;
            }
        }
    }
#pragma unroll
    for (int q = 0; q < TAPS_X; q++) shared[threadIdx.y][q][threadIdx.x] = sums[q];
    __syncthreads();
    if (f >= task.results) return;
    for (int q = threadIdx.y; q < TAPS_X && first + q < task.taps_x; q += ROWS) {
        real sum = 0;
#pragma unroll
        for (int row = 0; row < ROWS; row++) sum += shared[row][q][threadIdx.x];
        int64 tap = ((int64(part) * task.taps_y + p) * task.taps_x + first + q) * task.ins + c;
        parts[tap * task.results + f] = sum;
    }
}

// out[i] = sum of parts[part, i], in the order of the parts.
extern "C" __global__ void add_parts(const real* parts, real* out, int64 size, int64 count) {
    for (int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += int64(gridDim.x) * blockDim.x) {
        real sum = 0;
#pragma unroll 8
        for (int64 part = 0; part < count; part++) sum += parts[part * size + i];
        out[i] = sum;
    }
}
