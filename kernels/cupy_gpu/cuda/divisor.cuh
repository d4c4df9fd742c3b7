// Division by a constant: n / divisor for n < 2^31 (Granlund and Montgomery 1994).
struct Divisor {
    uint32 divisor, factor, shift;

    __device__ __forceinline__ uint32 quotient(uint32 n) const { return (__umulhi(n, factor) + n) >> shift; }
};
