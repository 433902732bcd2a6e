/* What a Transformer does on a CPU between its matrix products, each thing in one pass over its numbers.

   The same in PyTorch, a line or two each, is nmt/kernels/plain.py; tests hold this file to it.

   A matrix product gives y [R, W]. What it means is y * scale + bias, with a scale [R] for each row and a bias [W] for
   each column; either may be NULL. Where q is not NULL, a result goes there in 8 bits, with its scale [R]: it is
   (q - zero) * scale. Rows are R, their width W, heads H, the width of a head's keys K and of its values V. */

#include "common.h"

#define MIDDLE 128 /* what stands for 0 in 8 bits, where numbers may be below it */
#define CHUNK 64   /* logits of which the largest is found first */

/* A row in 8 bits. From 0 up it has twice the steps of a row that may be negative. */
static void quantize(int64_t width, const float *row, int positive, uint8_t *q, float *scale) {
    float most = 0.0f;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < width; i++) most = larger(most, fabsf(row[i]));
    float steps = positive ? 255.0f : 127.0f, zero = positive ? 0.0f : MIDDLE;
    *scale = most / steps;
    float times = most > 0.0f ? steps / most : 0.0f;
    SIMD for (int64_t i = 0; i < width; i++) q[i] = (uint8_t)(int32_t)(row[i] * times + zero + 0.5f);
}

/* Rows that may be negative, in 8 bits. */
void nmt_reduce(int64_t rows, int64_t width, const float *x, uint8_t *q, float *q_scale) {
    for (int64_t m = 0; m < rows; m++) quantize(width, x + m * width, 0, q + m * width, q_scale + m);
}

/* Few rows times a matrix [O, I] in 8 bits, which goes through the caches once for all of them:
   y = (x - zero) * scale, where `sum` is that of each row of the matrix. No pragma: GCC would not find its
   instruction for sums of products of bytes (VNNI) in a loop that has one. */
void nmt_multiply(int64_t rows, int64_t width, int64_t outs, const uint8_t *restrict x, int32_t zero,
                  const int8_t *restrict matrix, const int32_t *sum, const float *scale, float *restrict y) {
    for (int64_t o = 0; o < outs; o++, matrix += width)
        for (int64_t m = 0; m < rows; m++) {
            const uint8_t *row = x + m * width;
            int32_t products = 0;
            for (int64_t i = 0; i < width; i++) products += (int32_t)row[i] * (int32_t)matrix[i];
            y[m * outs + o] = (float)(products - zero * sum[o]) * scale[o];
        }
}

/* How many rows are few: so many that oneDNN, which is faster at many, is slower. Without VNNI, none are. */
int64_t nmt_few(void) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_MATMUL_INT8)
    return 4;
#else
    return 0;
#endif
}

/* y as what it means, in its place. */
void nmt_settle(int64_t rows, int64_t width, float *y, const float *scale, const float *bias) {
    for (int64_t m = 0; m < rows; m++, y += width) {
        float s = scale ? scale[m] : 1.0f;
        if (bias)
            SIMD for (int64_t i = 0; i < width; i++) y[i] = y[i] * s + bias[i];
        else
            SIMD for (int64_t i = 0; i < width; i++) y[i] *= s;
    }
}

/* x + y, and its norm. `pre`: the sum goes on in x, the norm to h; else the norm to both. y may be NULL, which is 0.
   bias of the norm NULL: root mean square, no mean. h or q may be NULL. */
void nmt_norm(int64_t rows, int64_t width, float *x, const float *y, const float *scale, const float *y_bias,
              const float *gain, const float *bias, float epsilon, int pre, float *h, uint8_t *q, float *q_scale) {
    float *normed = malloc(width * sizeof(float));
    for (int64_t m = 0; m < rows; m++, x += width) {
        if (y) {
            float s = scale ? scale[m] : 1.0f;
            if (y_bias)
                SIMD for (int64_t i = 0; i < width; i++) x[i] += y[i] * s + y_bias[i];
            else
                SIMD for (int64_t i = 0; i < width; i++) x[i] += y[i] * s;
            y += width;
        }
        float mean = 0.0f, square = 0.0f;
        if (bias) {
#pragma omp simd reduction(+ : mean)
            for (int64_t i = 0; i < width; i++) mean += x[i];
            mean /= width;
        }
#pragma omp simd reduction(+ : square)
        for (int64_t i = 0; i < width; i++) square += (x[i] - mean) * (x[i] - mean);
        float over = 1.0f / sqrtf(square / width + epsilon);
        float *to = pre ? (h ? h : normed) : x;
        if (bias)
            SIMD for (int64_t i = 0; i < width; i++) to[i] = (x[i] - mean) * over * gain[i] + bias[i];
        else
            SIMD for (int64_t i = 0; i < width; i++) to[i] = x[i] * over * gain[i];
        if (q) quantize(width, to, 0, q + m * width, q_scale + m);
        if (h && pre) h += width;
    }
    free(normed);
}

/* relu (0), gelu (1), or swiglu (2), whose y has twice the width: silu of the first half times the second. */
void nmt_activate(int64_t rows, int64_t width, float *y, const float *scale, const float *bias, int kind, float *h,
                  uint8_t *q, float *q_scale) {
    int64_t wide = kind == 2 ? 2 * width : width;
    float *row = malloc(width * sizeof(float));
    for (int64_t m = 0; m < rows; m++, y += wide) {
        nmt_settle(1, wide, y, scale ? scale + m : NULL, bias);
        float *to = h ? h + m * width : row;
        if (kind == 0)
            SIMD for (int64_t i = 0; i < width; i++) to[i] = y[i] > 0.0f ? y[i] : 0.0f;
        else if (kind == 1)
            for (int64_t i = 0; i < width; i++) to[i] = 0.5f * y[i] * (1.0f + erff(y[i] * 0.70710678f));
        else
            SIMD for (int64_t i = 0; i < width; i++) {
                float small = exponential(-fabsf(y[i]));
                to[i] = y[i] * (y[i] < 0.0f ? small : 1.0f) / (1.0f + small) * y[width + i];
            }
        if (q) quantize(width, to, kind == 0, q + m * width, q_scale + m);
    }
    free(row);
}

/* Equation 1 for one query and head: n keys and values, those `seen`, or where that is NULL, from `begin` on. Inline, for
   where the widths are constants, query and result stay in registers. There is room for LANES more weights. */
static inline __attribute__((always_inline)) void look(const float *restrict q, const float *restrict k,
                                                       const float *restrict v, int64_t stride, const int32_t *seen,
                                                       int64_t begin, int64_t n, int64_t k_width, int64_t v_width,
                                                       float *restrict weights, float *restrict out) {
    int64_t k_vectors = vectors_in(k_width), v_vectors = vectors_in(v_width), whole = (n + LANES - 1) / LANES * LANES;
    float over = 1.0f / sqrtf((float)k_width), top = -FLT_MAX, sum = 0.0f;
    Vector query[MOST], found[MOST];
    for (int64_t i = 0; i < k_vectors; i++) query[i] = *(const Vector *)(q + LANES * i);
    for (int64_t p = 0; p < n; p++) {
        const float *key = k + (seen ? seen[p] : begin + p) * stride;
        Vector products = {0};
        for (int64_t i = 0; i < k_vectors; i++) products += query[i] * *(const Vector *)(key + LANES * i);
        float product = total(products);
        for (int64_t i = LANES * k_vectors; i < k_width; i++) product += q[i] * key[i];
        weights[p] = product * over;
    }
    for (int64_t p = n; p < whole; p++) weights[p] = -FLT_MAX; /* whole vectors only; e to that is nothing */
    for (int64_t first = 0; first < whole; first += LANES)
#pragma omp simd reduction(max : top)
        for (int64_t p = first; p < first + LANES; p++) top = larger(top, weights[p]);
    for (int64_t first = 0; first < whole; first += LANES)
#pragma omp simd reduction(+ : sum)
        for (int64_t p = first; p < first + LANES; p++) {
            weights[p] = exponential(weights[p] - top);
            sum += weights[p];
        }
    float share = 1.0f / sum;
    for (int64_t i = 0; i < v_vectors; i++) found[i] = (Vector){0};
    for (int64_t i = LANES * v_vectors; i < v_width; i++) out[i] = 0.0f;
    for (int64_t p = 0; p < n; p++) {
        const float *value = v + (seen ? seen[p] : begin + p) * stride;
        float weight = weights[p] * share;
        for (int64_t i = 0; i < v_vectors; i++) found[i] += weight * *(const Vector *)(value + LANES * i);
        for (int64_t i = LANES * v_vectors; i < v_width; i++) out[i] += weight * value[i];
    }
    for (int64_t i = 0; i < v_vectors; i++) *(Vector *)(out + LANES * i) = found[i];
}

/* Equation 1 for each query and head. Query m, at q + m * q_stride, sees count[m] keys and values: those in the rows
   index[m, 0 ...] of kv, or where index is NULL, those from row begin[m] on. A row of kv holds H keys, then H values. */
void nmt_attend(int64_t rows, int64_t heads, int64_t k_width, int64_t v_width, const float *q, int64_t q_stride,
                const float *kv, int64_t kv_stride, const int32_t *index, int64_t index_stride, const int32_t *begin,
                const int32_t *count, float *out, uint8_t *eight, float *eight_scale) {
    int64_t width = heads * v_width, most = 1, alike = k_width == v_width ? k_width : 0;
    for (int64_t m = 0; m < rows; m++) most = count[m] > most ? count[m] : most;
    float *weights = malloc((most + LANES) * sizeof(float)), *row = malloc(width * sizeof(float));
    for (int64_t m = 0; m < rows; m++, q += q_stride) {
        const int32_t *seen = index ? index + m * index_stride : NULL;
        int64_t first = begin ? begin[m] : 0, n = count[m];
        float *to = out ? out + m * width : row;
        for (int64_t h = 0; h < heads; h++) {
            const float *k = kv + h * k_width, *v = kv + heads * k_width + h * v_width, *query = q + h * k_width;
            float *result = to + h * v_width;
            if (alike == 64)
                look(query, k, v, kv_stride, seen, first, n, 64, 64, weights, result);
            else if (alike == 32)
                look(query, k, v, kv_stride, seen, first, n, 32, 32, weights, result);
            else
                look(query, k, v, kv_stride, seen, first, n, k_width, v_width, weights, result);
        }
        if (eight) quantize(width, to, 0, eight + m * width, eight_scale + m);
    }
    free(weights);
    free(row);
}

/* The `most` likeliest tokens of each row, likeliest first: log p and id [R, most]. The tokens in `never` are none;
   where only_end, `end` is the only one, and what there is not has log p of -infinity. Overwrites the logits. */
void nmt_top(int64_t rows, int64_t width, float *logits, const float *scale, int64_t most, const int64_t *never,
             int64_t nevers, int64_t end, const uint8_t *only_end, float *log_p, int64_t *ids) {
    int64_t chunks = (width + CHUNK - 1) / CHUNK;
    float *largest = malloc(chunks * sizeof(float));
    for (int64_t m = 0; m < rows; m++, logits += width, log_p += most, ids += most) {
        float s = scale ? scale[m] : 1.0f, top = -FLT_MAX, sum = 0.0f;
        for (int64_t c = 0; c < chunks; c++) {
            int64_t stop = (c + 1) * CHUNK < width ? (c + 1) * CHUNK : width;
            float high = -FLT_MAX;
#pragma omp simd reduction(max : high)
            for (int64_t i = c * CHUNK; i < stop; i++) high = larger(high, logits[i]);
            largest[c] = high;
            top = larger(top, high);
        }
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) sum += exponential((logits[i] - top) * s);
        float log_z = top * s + logf(sum);
        for (int64_t j = 0; j < most; j++) log_p[j] = -INFINITY, ids[j] = end;
        if (only_end && only_end[m]) {
            log_p[0] = logits[end] * s - log_z;
            continue;
        }
        for (int64_t j = 0; j < nevers; j++) logits[never[j]] = -INFINITY;
        for (int64_t c = 0; c < chunks; c++) {
            if (!(largest[c] > log_p[most - 1])) continue;
            int64_t stop = (c + 1) * CHUNK < width ? (c + 1) * CHUNK : width;
            for (int64_t i = c * CHUNK; i < stop; i++) {
                if (!(logits[i] > log_p[most - 1])) continue;
                int64_t j = most - 1;
                for (; j > 0 && logits[i] > log_p[j - 1]; j--) log_p[j] = log_p[j - 1], ids[j] = ids[j - 1];
                log_p[j] = logits[i], ids[j] = i;
            }
        }
        for (int64_t j = 0; j < most; j++) log_p[j] = log_p[j] * s - log_z;
    }
    free(largest);
}
