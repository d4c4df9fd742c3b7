// Batch normalization of the columns of a matrix: see columns.py for the layout of blocks and chunks.
//
// What is added: differences from the first row of the column, and their squares, in float64; so a mean far from zero
// takes nothing from the variance.

#ifndef RELU
#define RELU 0
#endif

#include "columns.cuh"

// From sums of differences from `shift` and of their squares over n rows.
struct Moments {
    real mean, variance;

    __device__ __forceinline__ Moments(Sums sums, real shift, int64 n) {
        wide away = sums.first / n, spread = sums.second / n - away * away;
        mean = real(wide(shift) + away);
        variance = real(spread < 0 ? wide(0) : spread);
    }
};

struct Affine {
    real weight, bias;

    __device__ __forceinline__ Affine(const real* weights, int64 weight_step, const real* biases, int64 bias_step,
                                      int64 column)
        : weight(weights ? weights[column * weight_step] : real(1)),
          bias(biases ? biases[column * bias_step] : real(0)) {}
};

__device__ __forceinline__ Sums statistics(const Walk& walk, const real* x, int64 row_step, wide shift) {
    Sums sums = {0, 0};
    walk.each([&](int64 i) { return x[i * row_step]; },
              [&](int64, real v) {
                  wide away = wide(v) - shift;
                  sums.first += away;
                  sums.second += away * away;
              });
    sums.first = down_columns(sums.first);
    sums.second = down_columns(sums.second);
    return sums;
}

__device__ __forceinline__ void normalized(const Walk& walk, const real* x, int64 row_step, Affine affine, real mean,
                                           real variance, double eps, real* out, int64 width) {
    real scale = affine.weight / sqrt(variance + real(eps));
    walk.each([&](int64 i) { return x[i * row_step]; },
              [&](int64 i, real v) {
                  real y = (v - mean) * scale + affine.bias;
                  out[i * width + walk.column] = RELU ? greater_of(y, real(0)) : y;
              });
}

#define FORWARD                                                                                                        \
    const real *x, const real *weights, const real *biases, double eps, real *out, real *means, real *variances,       \
        Sums *partial, int64 rows, int64 width, int64 chunk, int64 row_step, int64 step, int64 weight_step,            \
        int64 bias_step

// All in one launch, where there is but one chunk.
extern "C" __global__ void __launch_bounds__(256) batch_norm(FORWARD) {
    WALK(rows)
    x += walk.column * step;
    real shift = rows ? x[0] : real(0);
    Moments moments(statistics(walk, x, row_step, shift), shift, rows);
    if (inside && threadIdx.y == 0) means[walk.column] = moments.mean, variances[walk.column] = moments.variance;
    Affine affine(weights, weight_step, biases, bias_step, walk.column);
    normalized(walk, x, row_step, affine, moments.mean, moments.variance, eps, out, width);
}

extern "C" __global__ void __launch_bounds__(256) batch_statistics(FORWARD) {
    WALK(rows)
    x += walk.column * step;
    Sums sums = statistics(walk, x, row_step, x[0]);
    if (inside && threadIdx.y == 0) partial[blockIdx.y * width + walk.column] = sums;
}

extern "C" __global__ void __launch_bounds__(256)
batch_moments(const real* x, const Sums* partial, real* means, real* variances, int64 rows, int64 width, int64 chunk,
              int64 step) {
    WALK(chunk)
    Moments moments(summed(walk, partial, width), x[walk.column * step], rows);
    if (inside && threadIdx.y == 0) means[walk.column] = moments.mean, variances[walk.column] = moments.variance;
}

extern "C" __global__ void __launch_bounds__(256) batch_normalize(FORWARD) {
    WALK(rows)
    Affine affine(weights, weight_step, biases, bias_step, walk.column);
    real mean = means[walk.column], variance = variances[walk.column];
    normalized(walk, x + walk.column * step, row_step, affine, mean, variance, eps, out, width);
}

// ------------------------------------------------------------------------------------ backward

#define BACKWARD                                                                                                       \
    const real *g, const real *x, const real *weights, const real *biases, const real *means, const real *variances,   \
        double eps, real *out, real *weight_gradient, real *bias_gradient, Sums *partial, int64 rows, int64 width,     \
        int64 chunk, int64 g_row, int64 g_step, int64 row_step, int64 step, int64 weight_step, int64 bias_step

// One column of the operands of the backward pass.
struct Column {
    const real *g, *x;
    int64 g_row, x_row;
    Affine affine;
    real mean, scale;

    __device__ __forceinline__ Column(int64 j, BACKWARD)
        : g(g + j * g_step), x(x + j * step), g_row(g_row), x_row(row_step),
          affine(weights, weight_step, biases, bias_step, j), mean(means[j]),
          scale(1 / sqrt(variances[j] + real(eps))) {}

    // f(row, normalized x, g where the activation lets it through) for each row.
    template <typename F> __device__ __forceinline__ void each(const Walk& walk, F f) const {
        walk.each([&](int64 i) { return Pair{g[i * g_row], x[i * x_row]}; },
                  [&](int64 i, Pair part) {
                      real z = (part.x - mean) * scale;
                      f(i, z, !RELU || z * affine.weight + affine.bias > 0 ? part.g : real(0));
                  });
    }

    // Sums of the gradients for the bias and for the weight.
    __device__ __forceinline__ Sums sums(const Walk& walk) const {
        Sums sums = {0, 0};
        each(walk, [&](int64, real z, real own) {
            sums.first += own;
            sums.second += wide(own) * wide(z);
        });
        return {down_columns(sums.first), down_columns(sums.second)};
    }

    __device__ __forceinline__ void gradient(const Walk& walk, real for_weight, real for_bias, real* out, int64 rows,
                                             int64 width) const {
        real outer = scale * affine.weight, along = for_weight / rows, middle = for_bias / rows;
        each(walk, [&](int64 i, real z, real own) {
            out[i * width + walk.column] = outer * (own - (middle + z * along));
        });
    }
};

#define COLUMN                                                                                                         \
    Column column(walk.column, g, x, weights, biases, means, variances, eps, out, weight_gradient, bias_gradient,      \
                  partial, rows, width, chunk, g_row, g_step, row_step, step, weight_step, bias_step);

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward(BACKWARD) {
    WALK(rows)
    COLUMN
    Sums sums = column.sums(walk);
    real for_bias = real(sums.first), for_weight = real(sums.second);
    if (inside && threadIdx.y == 0) bias_gradient[walk.column] = for_bias, weight_gradient[walk.column] = for_weight;
    column.gradient(walk, for_weight, for_bias, out, rows, width);
}

extern "C" __global__ void __launch_bounds__(256) batch_sums(BACKWARD) {
    WALK(rows)
    COLUMN
    Sums sums = column.sums(walk);
    if (inside && threadIdx.y == 0) partial[blockIdx.y * width + walk.column] = sums;
}

extern "C" __global__ void __launch_bounds__(256) batch_gradient(BACKWARD) {
    WALK(rows)
    COLUMN
    column.gradient(walk, weight_gradient[walk.column], bias_gradient[walk.column], out, rows, width);
}
