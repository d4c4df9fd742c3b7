// What NVIDIA's headers of the runtime need of this file, which another package has, on a host without CUDA's compiler.
#pragma once
#define __host__
#define __device__
#define __device_builtin__
#define __cudart_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __builtin_align__(n) alignas(n)
#define __align__(n) alignas(n)
#define CUDARTAPI
#define CUDARTAPI_CDECL
