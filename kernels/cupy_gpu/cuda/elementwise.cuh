// What generated loops over elements share. A thread takes PACK elements that lie side by side at a time, EACH times.
#include "divisor.cuh"

template <typename T> struct __align__(sizeof(T) * PACK) Pack {
    T v[PACK];
};

// The first `count` of PACK elements, all of which are aligned together.
template <typename T> __device__ __forceinline__ Pack<T> read(const T* from, int64 count) {
    if (count >= PACK) return *reinterpret_cast<const Pack<T>*>(from);
    Pack<T> made = {};
#pragma unroll
    for (int j = 0; j < PACK; j++)
        if (j < count) made.v[j] = from[j];
    return made;
}

template <typename T> __device__ __forceinline__ void write(T* to, const Pack<T>& made, int64 count) {
    if (count >= PACK) {
        *reinterpret_cast<Pack<T>*>(to) = made;
        return;
    }
#pragma unroll
    for (int j = 0; j < PACK; j++)
        if (j < count) to[j] = made.v[j];
}
