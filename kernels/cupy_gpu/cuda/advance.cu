// counter += amount

extern "C" __global__ void advance_int64(int64* counter, int64 amount) { *counter += amount; }
extern "C" __global__ void advance_float64(double* counter, double amount) { *counter += amount; }
