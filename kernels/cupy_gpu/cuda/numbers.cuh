// What the tensor cores take for float32: macro TENSOR is one of these, or 0.
#define TF32 1
#define BF16 2

#if TENSOR == BF16
typedef unsigned short number;
#else
typedef float number;
#endif
