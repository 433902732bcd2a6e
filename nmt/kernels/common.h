/* What all kernels stand on: vectors of numbers, their sum, e to a power. */

#pragma once

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SIMD _Pragma("omp simd")

/* fmaxf takes care of what is no number, and so stays out of vectors. */
static inline float larger(float a, float b) { return a > b ? a : b; }

/* Numbers that are added and multiplied together; any compiler of our time makes of them what its processor has. */
#define LANES 16
#define MOST 16 /* of them in registers, for heads of up to 256; the rest of a head goes number by number */
typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));
typedef float Half __attribute__((vector_size(LANES / 2 * sizeof(float)), aligned(sizeof(float))));
typedef float Quarter __attribute__((vector_size(LANES / 4 * sizeof(float)), aligned(sizeof(float))));

static inline int64_t vectors_in(int64_t width) { return width / LANES < MOST ? width / LANES : MOST; }

/* Their sum, by halves. */
static inline float total(Vector x) {
    union { Vector all; Half half[2]; } sixteen = {x};
    union { Half all; Quarter half[2]; } eight = {sixteen.half[0] + sixteen.half[1]};
    Quarter four = eight.half[0] + eight.half[1];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* e^x for x <= 0, to 2 units in the last place: 2^n e^r with |r| <= ln 2 / 2, and e^r as a polynomial (Cephes). */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: what lies behind the point is rounded away */
    n -= 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t bits; float number; } power = {((int32_t)n + 127) << 23};
    return p * power.number;
}

/* bf16 is the upper half of fp32. */
typedef uint16_t Bf16;

static inline float widened(Bf16 x) {
    union { uint32_t bits; float number; } wide = {(uint32_t)x << 16};
    return wide.number;
}

/* To the nearest, ties to even; what is no number stays none. */
static inline Bf16 narrowed(float x) {
    union { float number; uint32_t bits; } wide = {x};
    uint32_t near = (wide.bits + 0x7fffu + ((wide.bits >> 16) & 1u)) >> 16, none = (wide.bits >> 16) | 0x40u;
    return (Bf16)((wide.bits & 0x7fffffffu) > 0x7f800000u ? none : near);
}

static inline void widen(int64_t n, const Bf16 *restrict from, float *restrict to) {
    SIMD for (int64_t i = 0; i < n; i++) to[i] = widened(from[i]);
}

static inline void narrow(int64_t n, const float *restrict from, Bf16 *restrict to) {
    SIMD for (int64_t i = 0; i < n; i++) to[i] = narrowed(from[i]);
}
