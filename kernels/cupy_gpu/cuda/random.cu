// Philox 4x32-10 (Salmon et al. 2011), and what is made of its words. state: seed, stream, step.

struct Words {
    uint32 v[4];
};

__device__ __forceinline__ Words philox(uint64 seed, uint64 stream, uint64 step, int64 counter) {
    uint32 a = uint32(counter), b = uint32(step), c = uint32(step >> 32), d = uint32(stream);
    uint32 key = uint32(seed), other = uint32(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32 left = 0xD2511F53u * a, left_high = __umulhi(0xD2511F53u, a);
        uint32 right = 0xCD9E8D57u * c, right_high = __umulhi(0xCD9E8D57u, c);
        a = right_high ^ b ^ key, b = right;
        c = left_high ^ d ^ other, d = left;
        key += 0x9E3779B9u, other += 0xBB67AE85u;
    }
    return {{a, b, c, d}};
}

__device__ __forceinline__ float narrow_uniform(uint32 word) { return float(word >> 8) * 5.9604644775390625e-8f; }

// Elements that 4 words make.
#define EACH (16 / int(sizeof(real)))

__device__ __forceinline__ void uniforms(const Words& words, float* to) {
#pragma unroll
    for (int k = 0; k < 4; k++) to[k] = narrow_uniform(words.v[k]);
}
__device__ __forceinline__ void uniforms(const Words& words, double* to) {
#pragma unroll
    for (int k = 0; k < 2; k++)
        to[k] = ((words.v[2 * k] >> 5) * 67108864.0 + (words.v[2 * k + 1] >> 6)) * 1.1102230246251565e-16;
}

__device__ __forceinline__ void sine_and_cosine(float turns, float* s, float* c) { sincospif(2 * turns, s, c); }
__device__ __forceinline__ void sine_and_cosine(double turns, double* s, double* c) { sincospi(2 * turns, s, c); }

template <int N> struct __align__(16) Pack {
    real v[N];
};

// make(words) gives the pack of N elements for each counter; out has n elements.
template <int N, typename F>
__device__ __forceinline__ void draw(const int64* state, int64 stride, real* out, int64 n, F make) {
    uint64 seed = state[0], stream = state[stride], step = state[2 * stride];
    bool packed = reinterpret_cast<uint64>(out) % 16 == 0;
    int64 pace = int64(gridDim.x) * blockDim.x;
    for (int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x; i * N < n; i += pace) {
        Pack<N> made = make(philox(seed, stream, step, i));
        if (packed && (i + 1) * N <= n) {
            *reinterpret_cast<Pack<N>*>(out + i * N) = made;
        } else {
#pragma unroll
            for (int k = 0; k < N; k++)
                if (i * N + k < n) out[i * N + k] = made.v[k];
        }
    }
}

extern "C" __global__ void uniform(const int64* state, int64 stride, real* out, int64 n) {
    draw<EACH>(state, stride, out, n, [](const Words& words) {
        Pack<EACH> made;
        uniforms(words, made.v);
        return made;
    });
}

extern "C" __global__ void normal(const int64* state, int64 stride, real* out, int64 n) {
    draw<EACH>(state, stride, out, n, [](const Words& words) {
        Pack<EACH> made;
        uniforms(words, made.v);
#pragma unroll
        for (int k = 0; k < EACH; k += 2) {
            real radius = sqrt(real(-2) * log(real(1) - made.v[k])), s, c;
            sine_and_cosine(made.v[k + 1], &s, &c);
            made.v[k] = radius * c, made.v[k + 1] = radius * s;
        }
        return made;
    });
}

extern "C" __global__ void dropout_mask(const int64* state, int64 stride, real* out, int64 n, float rate,
                                        double scale) {
    real kept = real(scale);
    draw<4>(state, stride, out, n, [=](const Words& words) {
        Pack<4> made;
#pragma unroll
        for (int k = 0; k < 4; k++) made.v[k] = narrow_uniform(words.v[k]) >= rate ? kept : real(0);
        return made;
    });
}
