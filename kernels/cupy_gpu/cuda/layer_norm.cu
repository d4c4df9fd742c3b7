// Normalization of groups that are runs of `count` elements, `groups` of them in each row of x: a group of threads
// for each. Means may be null: then none is subtracted. What is written is contiguous.

#include "row.cuh"

#ifndef SUMS
#define SUMS 0  // 1: the backward pass gives sums for the gradients of weight and bias, too; not with EACH 0
#endif

struct Sums {
    wide first, second;
};

// Of the run that this group of threads works on.
struct Run {
    int64 at, row, column;  // number of the run; its row, and its first column

    __device__ __forceinline__ Run(int64 at, int64 groups, int64 count) : at(at) {
        row = quotient(at, groups);
        column = (at - row * groups) * count;
    }
};

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
layer_norm(const real* x, const real* weight, const real* bias, double eps, real* out, real* means, real* scales,
           int64 runs, int64 groups, int64 count, int64 row_step, int64 step, int64 weight_step, int64 bias_step) {
    int64 place = group_row();
    Run run(place < runs ? place : runs - 1, groups, count);
    Row row(x + run.row * row_step + run.column * step, step, count);
    real mean = 0;
    if (means) {
        total sum = 0;
        row.each([&](int64, real v) { sum += v; });
        mean = real(group_reduce<Sum>(sum) / count);
    }
    total squares = 0;
    row.each([&](int64, real v) { squares += (v - mean) * (v - mean); });
    real scale = 1 / sqrt(real(group_reduce<Sum>(squares) / count) + real(eps));
    if (place >= runs) return;
    row.each([&](int64 j, real v) {
        int64 column = run.column + j;
        real z = (v - mean) * scale * (weight ? weight[column * weight_step] : real(1));
        out[run.at * count + j] = z + (bias ? bias[column * bias_step] : real(0));
    });
    if (group_lane()) return;
    if (means) means[run.at] = mean;
    scales[run.at] = scale;
}

// partial (blocks, count), with SUMS: over the rows of each block, the sums of g, and of g times the normalized x. Then
// runs are whole rows, and blocks may be fewer than rows.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
layer_norm_backward(const real* g, const real* x, const real* weight, const real* means, const real* scales, real* out,
                    Sums* partial, int64 runs, int64 groups, int64 count, int64 g_row, int64 g_step, int64 row_step,
                    int64 step, int64 weight_step) {
    Sums own[EACH ? EACH : 1] = {};
    int64 own_place = threadIdx.x / GROUP, together = blockDim.x / GROUP;
    for (int64 first = blockIdx.x * together; first < runs; first += gridDim.x * together) {
        bool inside = first + own_place < runs;
        Run run(inside ? first + own_place : runs - 1, groups, count);
        Row gs(g + run.row * g_row + run.column * g_step, g_step, count);
        Row xs(x + run.row * row_step + run.column * step, step, count);
        real mean = means ? means[run.at] : real(0), scale = scales[run.at];
        total sum = 0, along = 0;
        auto weighted = [&](int64 j, real v) { return weight ? v * weight[(run.column + j) * weight_step] : v; };
        each_pair(gs, xs, [&](int64 j, real a, real b) {
            real h = weighted(j, a);
            sum += h;
            along += h * ((b - mean) * scale);
        });
        real middle = means ? real(group_reduce<Sum>(sum) / count) : real(0);
        real slope = real(group_reduce<Sum>(along) / count);
        if (!inside) continue;
        each_pair(gs, xs, [&](int64 j, real a, real b) {
            out[run.at * count + j] = scale * (weighted(j, a) - middle - (b - mean) * scale * slope);
        });
#if SUMS
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            own[k].first += gs.held[k];
            own[k].second += wide(gs.held[k]) * wide((xs.held[k] - mean) * scale);
        }
#endif
    }
#if SUMS
    __shared__ Sums parts[ROW_THREADS];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int64 column = group_lane() + k * GROUP;
        __syncthreads();
        parts[threadIdx.x] = own[k];
        __syncthreads();
        if (threadIdx.x >= GROUP || column >= count) continue;
        for (int i = 1; i < together; i++) {
            own[k].first += parts[threadIdx.x + i * GROUP].first;
            own[k].second += parts[threadIdx.x + i * GROUP].second;
        }
        partial[blockIdx.x * count + column] = own[k];
    }
#endif
}
