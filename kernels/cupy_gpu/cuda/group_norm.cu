// Normalization of groups of channels over the places of an image, x (n, places, channels): a block for each image and
// few groups side by side, of `size` channels each. Means may be null: then none is subtracted.

#include "columns.cuh"

// The channels of a block, by blocks of (channels, places) threads: `together` whole groups, with a thread for each
// channel; or a single group, of which a thread may have several channels.
struct Bundle {
    int64 image;
    int group, first, width, size;  // first of its groups and channels, number of channels; channels of a group
    bool single;

    __device__ __forceinline__ Bundle(int groups, int size, int together) : size(size), single(together == 1) {
        int bundles = (groups + together - 1) / together;
        image = blockIdx.x / bundles;
        group = int(blockIdx.x % bundles) * together;
        first = group * size;
        width = (group + together < groups ? together : groups - group) * size;
        if (!single) group += min(int(threadIdx.x), width - 1) / size;  // that of this thread
    }

    // use(place, channel, load(place, channel)) for the elements of this thread; several are loaded before the first is
    // used.
    template <typename L, typename U> __device__ __forceinline__ void each(int places, L load, U use) const {
        constexpr int many = EACH(sizeof(load(0, 0)));
        for (int j = first + threadIdx.x; j < first + width; j += blockDim.x)
            for (int i = threadIdx.y; i < places; i += many * blockDim.y) {
                decltype(load(i, j)) part[many];
#pragma unroll
                for (int k = 0; k < many; k++)
                    if (i + k * blockDim.y < places) part[k] = load(i + k * blockDim.y, j);
#pragma unroll
                for (int k = 0; k < many; k++)
                    if (i + k * blockDim.y < places) use(i + k * blockDim.y, j, part[k]);
            }
    }

    // The sum over the group of this thread.
    __device__ __forceinline__ wide sum(wide value) const {
        if (single) return tree_reduce<Sum>(value, threadIdx.y * blockDim.x + threadIdx.x, blockDim.x * blockDim.y, 1);
        __shared__ wide channels[WARP];
        value = down_columns(value);
        __syncthreads();
        if (threadIdx.y == 0) channels[threadIdx.x] = value;
        __syncthreads();
        value = 0;
        int start = min(int(threadIdx.x), width - 1) / size * size;
        for (int k = 0; k < size; k++) value += channels[start + k];
        return value;
    }

    // Whether this thread writes what is common to the group.
    __device__ __forceinline__ bool leads() const {
        return threadIdx.y == 0 && (single ? threadIdx.x == 0 : int(threadIdx.x) < width && threadIdx.x % size == 0);
    }
};

extern "C" __global__ void __launch_bounds__(256)
group_norm(const real* x, const real* weight, const real* bias, double eps, real* out, real* means, real* scales,
           int places, int groups, int size, int together, int64 image_step, int64 row_step, int64 step,
           int64 weight_step, int64 bias_step) {
    Bundle bundle(groups, size, together);
    x += bundle.image * image_step;
    wide shift = means && places && size ? wide(x[int64(bundle.group) * size * step]) : wide(0);
    Sums sums = {0, 0};
    auto load = [&](int i, int j) { return x[i * row_step + j * step]; };
    bundle.each(places, load, [&](int, int, real v) {
        wide away = wide(v) - shift;
        sums.first += away;
        sums.second += away * away;
    });
    wide count = wide(places) * size, away = means ? bundle.sum(sums.first) / count : wide(0);
    wide spread = bundle.sum(sums.second) / count - away * away;
    real mean = real(shift + away), scale = 1 / sqrt(real(spread < 0 ? wide(0) : spread) + real(eps));
    int64 at = bundle.image * groups + bundle.group, channels = int64(groups) * size;
    out += bundle.image * places * channels;
    bundle.each(places, load, [&](int i, int j, real v) {
        real z = (v - mean) * scale * (weight ? weight[j * weight_step] : real(1));
        out[i * channels + j] = z + (bias ? bias[j * bias_step] : real(0));
    });
    if (!bundle.leads()) return;
    if (means) means[at] = mean;
    scales[at] = scale;
}

extern "C" __global__ void __launch_bounds__(256)
group_norm_backward(const real* g, const real* x, const real* weight, const real* means, const real* scales, real* out,
                    int places, int groups, int size, int together, int64 g_image, int64 g_row, int64 g_step,
                    int64 image_step, int64 row_step, int64 step, int64 weight_step) {
    Bundle bundle(groups, size, together);
    g += bundle.image * g_image;
    x += bundle.image * image_step;
    int64 at = bundle.image * groups + bundle.group, channels = int64(groups) * size;
    real mean = means ? means[at] : real(0), scale = scales[at];
    auto load = [&](int i, int j) {
        real own = g[i * g_row + j * g_step], z = (x[i * row_step + j * step] - mean) * scale;
        return Pair{weight ? own * weight[j * weight_step] : own, z};
    };
    Sums sums = {0, 0};
    bundle.each(places, load, [&](int, int, Pair part) {
        sums.first += part.g;
        sums.second += wide(part.g) * wide(part.x);
    });
    wide count = wide(places) * size;
    real middle = means ? real(bundle.sum(sums.first) / count) : real(0);
    real slope = real(bundle.sum(sums.second) / count);
    out += bundle.image * places * channels;
    bundle.each(places, load, [&](int i, int j, Pair part) {
        out[i * channels + j] = scale * (part.g - middle - part.x * slope);
    });
}

// Sums of g, and of g times the normalized x, over the rows (image, place) of a chunk, for each channel.
extern "C" __global__ void __launch_bounds__(256)
group_sums(const real* g, const real* x, const real* means, const real* scales, Sums* partial, int64 rows, int64 width,
           int64 chunk, int64 places, int64 groups, int64 size, int64 g_image, int64 g_row, int64 g_step,
           int64 image_step, int64 row_step, int64 step) {
    WALK(rows)
    int64 group = quotient(walk.column, size);
    g += walk.column * g_step;
    x += walk.column * step;
    Sums sums = {0, 0};
    auto load = [&](int64 i) {
        int64 image = quotient(i, places), place = i - image * places, at = image * groups + group;
        real v = x[image * image_step + place * row_step];
        return Pair{g[image * g_image + place * g_row], (v - (means ? means[at] : real(0))) * scales[at]};
    };
    walk.each(load, [&](int64, Pair part) {
        sums.first += part.g;
        sums.second += wide(part.g) * wide(part.x);
    });
    sums.first = down_columns(sums.first);
    sums.second = down_columns(sums.second);
    if (inside && threadIdx.y == 0) partial[blockIdx.y * width + walk.column] = sums;
}
