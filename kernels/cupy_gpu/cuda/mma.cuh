// Products of small matrices by the tensor cores of sm_80 and later: for a warp, d (16, 8) += a (16, k) b (k, 8).
//
// With g = lane / 4 and t = lane % 4, a lane holds of d: rows g, g, g + 8, g + 8, columns 2t, 2t + 1, 2t, 2t + 1, and
//     tf32, k = 8     a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)               b: (t, g), (t + 4, g)
//     bf16, k = 16    a: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)           b: (2t, g), (2t + 8, g)
// where a word of bf16 is a pair along k, the first in its low half.

#ifdef EMULATED
// To 10 bits of mantissa, ties away from zero.
inline uint32 tf32(float x) { return x != x ? 0x7fffffffu : (__float_as_uint(x) + 0x1000u) & ~0x1fffu; }
// To 7 bits of mantissa, ties to even.
inline uint32 bf16(float x) {
    uint32 word = __float_as_uint(x);
    return x != x ? 0x7fffu : (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
}
inline uint32 bf16_pair(float low, float high) { return bf16(low) | bf16(high) << 16; }

namespace emulated {
struct Operands {
    uint32 a[4], b[2];
};
inline float half_of(uint32 word, int which) { return __uint_as_float(which ? word & 0xffff0000u : word << 16); }

// a(operands of all lanes, row, k) and b(operands, k, column) pick a number.
template <int K, typename A, typename B> void multiply(float (&d)[4], const Operands& mine, A a, B b) {
    int lane = threadIdx.x % WARP;
    emulator::together(mine, [&](const Operands* all) {
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = 0;
            for (int k = 0; k < K; k++) sum += double(a(all, row, k)) * b(all, k, column);
            d[i] = float(d[i] + sum);
        }
    });
}
}  // namespace emulated

inline void mma_tf32(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    using emulated::Operands;
    auto value = [](uint32 word) { return __uint_as_float(word & ~0x1fffu); };
    emulated::multiply<8>(
        d, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}},
        [&](const Operands* all, int i, int k) { return value(all[i % 8 * 4 + k % 4].a[i / 8 + k / 4 * 2]); },
        [&](const Operands* all, int k, int j) { return value(all[j * 4 + k % 4].b[k / 4]); });
}
inline void mma_bf16(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    using emulated::Operands, emulated::half_of;
    emulated::multiply<16>(
        d, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}},
        [](const Operands* all, int i, int k) {
            return half_of(all[i % 8 * 4 + k % 8 / 2].a[i / 8 + k / 8 * 2], k % 2);
        },
        [](const Operands* all, int k, int j) { return half_of(all[j * 4 + k % 8 / 2].b[k / 8], k % 2); });
}
inline void load_rows(uint32 (&words)[4], const float* row) {
    emulator::together(row, [&](const float* const* rows) {
        int lane = threadIdx.x % WARP;
        for (int i = 0; i < 4; i++) words[i] = __float_as_uint(rows[i * 8 + lane / 4][lane % 4]);
    });
}
#else
__device__ __forceinline__ uint32 tf32(float x) {
    uint32 word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
    return word;
}
__device__ __forceinline__ uint32 bf16_pair(float low, float high) {
    uint32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Four blocks of 8 rows of 4 floats in shared memory: lane 8 i + r gives the address (of 16 bytes) of row r of block i;
// word i of a lane is element t of row g of block i.
__device__ __forceinline__ void load_rows(uint32 (&words)[4], const float* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(uint32(__cvta_generic_to_shared(row)))
                 : "memory");
}
#endif
