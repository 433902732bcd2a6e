/* What a Transformer does on a CPU between its matrix products when it learns, forwards and backwards.

   The same in PyTorch is the plain path of the model and of its loss; tests hold this file to it.

   Attention is that of sentences lying end to end: sentence s has the queries q_begin[s] to q_begin[s + 1] and the keys
   and values k_begin[s] to k_begin[s + 1]; each of its H heads is W numbers wide, a multiple of LANES. A row of weights
   has room for whole vectors, with zeros behind the last key. */

#include "common.h"

static inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

static inline Vector spread(float x) { return x - (Vector){0}; }

/* Rows of c [.., vectors * LANES] = rows of a [.., depth] times b. Inline, so that all sums stay in registers. */
static inline __attribute__((always_inline)) void tile(int rows, int vectors, int64_t depth, const float *restrict a,
                                                       int64_t a_row, int64_t a_column, const float *restrict b,
                                                       int64_t b_row, float *restrict c, int64_t c_row) {
    Vector sums[8][4];
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < vectors; n++) sums[m][n] = (Vector){0};
    for (int64_t i = 0; i < depth; i++, a += a_column, b += b_row)
        for (int m = 0; m < rows; m++) {
            Vector factor = spread(a[m * a_row]);
            for (int n = 0; n < vectors; n++) sums[m][n] += factor * *(const Vector *)(b + n * LANES);
        }
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < vectors; n++) *(Vector *)(c + m * c_row + n * LANES) = sums[m][n];
}

/* c [rows, width] = a [rows, depth] b [depth, width], for a width of whole vectors; a may lie transposed. */
static void multiply(int64_t rows, int64_t width, int64_t depth, const float *a, int64_t a_row, int64_t a_column,
                     const float *b, int64_t b_row, float *c, int64_t c_row) {
    for (int64_t n = 0; n < width;) {
        int64_t vectors = (width - n) / LANES, m = 0;
        vectors = vectors < 4 ? vectors : 4;
#define TILES(R, N) \
    for (; m + R <= rows; m += R) tile(R, N, depth, a + m * a_row, a_row, a_column, b + n, b_row, c + m * c_row + n, c_row)
        if (vectors == 4) {
            TILES(4, 4);
            TILES(1, 4);
        } else if (vectors == 3) {
            TILES(4, 3);
            TILES(1, 3);
        } else if (vectors == 2) {
            TILES(8, 2);
            TILES(2, 2);
            TILES(1, 2);
        } else {
            TILES(8, 1);
            TILES(4, 1);
            TILES(1, 1);
        }
#undef TILES
        n += vectors * LANES;
    }
}

/* to [width, padded(rows)] = the transpose of rows [rows, width], with zeros behind. */
static void transpose(int64_t rows, int64_t width, const float *from, int64_t stride, float *to) {
    int64_t wide = padded(rows);
    for (int64_t i = 0; i < width; i++) {
        for (int64_t m = 0; m < rows; m++) to[i * wide + m] = from[m * stride + i];
        for (int64_t m = rows; m < wide; m++) to[i * wide + m] = 0.0f;
    }
}

/* Row by row the softmax of n products times `over`; zeros behind. */
static void soften(int64_t n, int64_t wide, float over, float *row) {
    float top = -INFINITY, sum = 0.0f; /* where all are -INFINITY, what comes is no number, as in PyTorch */
    for (int64_t p = 0; p < n; p++) row[p] *= over;
    for (int64_t p = n; p < wide; p++) row[p] = -INFINITY;
#pragma omp simd reduction(max : top)
    for (int64_t p = 0; p < wide; p++) top = larger(top, row[p]);
    SIMD for (int64_t p = 0; p < wide; p++) row[p] = exponential(row[p] - top);
    for (int64_t p = n; p < wide; p++) row[p] = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t p = 0; p < wide; p++) sum += row[p];
    float share = 1.0f / sum;
    SIMD for (int64_t p = 0; p < wide; p++) row[p] *= share;
}

/* Equation 1: the weights, and what they find, out [all queries, heads * width]. */
void nmt_attention(int64_t sentences, int64_t heads, int64_t width, const int32_t *q_begin, const int32_t *k_begin,
                   const float *q, int64_t q_row, const float *k, int64_t k_row, const float *v, int64_t v_row,
                   int causal, float *weights, float *out) {
    int64_t longest = 0, out_row = heads * width;
    for (int64_t s = 0; s < sentences; s++) {
        int64_t keys = k_begin[s + 1] - k_begin[s];
        longest = keys > longest ? keys : longest;
    }
    float over = 1.0f / sqrtf((float)width), *turned = malloc(width * padded(longest) * sizeof(float));
    for (int64_t s = 0; s < sentences; s++) {
        int64_t first = q_begin[s], queries = q_begin[s + 1] - first, begin = k_begin[s], keys = k_begin[s + 1] - begin;
        int64_t wide = padded(keys);
        for (int64_t h = 0; h < heads; h++, weights += queries * wide) {
            int64_t at = h * width;
            transpose(keys, width, k + begin * k_row + at, k_row, turned);
            multiply(queries, wide, width, q + first * q_row + at, q_row, 1, turned, wide, weights, wide);
            for (int64_t m = 0; m < queries; m++) soften(causal ? m + 1 : keys, wide, over, weights + m * wide);
            multiply(queries, width, keys, weights, wide, 1, v + begin * v_row + at, v_row, out + first * out_row + at, out_row);
        }
    }
    free(turned);
}

/* Its gradients, of out [all queries, heads * width], to those of queries, keys and values. */
void nmt_attention_back(int64_t sentences, int64_t heads, int64_t width, const int32_t *q_begin, const int32_t *k_begin,
                        const float *q, int64_t q_row, const float *k, int64_t k_row, const float *v, int64_t v_row,
                        const float *weights, const float *out, float *to_q, int64_t to_q_row, float *to_k,
                        int64_t to_k_row, float *to_v, int64_t to_v_row) {
    int64_t longest = 0, largest = 0, row = heads * width;
    for (int64_t s = 0; s < sentences; s++) {
        int64_t keys = padded(k_begin[s + 1] - k_begin[s]), cells = keys * (q_begin[s + 1] - q_begin[s]);
        longest = keys > longest ? keys : longest;
        largest = cells > largest ? cells : largest;
    }
    float over = 1.0f / sqrtf((float)width);
    float *turned = malloc(width * longest * sizeof(float)), *scores = malloc(largest * sizeof(float));
    for (int64_t s = 0; s < sentences; s++) {
        int64_t first = q_begin[s], queries = q_begin[s + 1] - first, begin = k_begin[s], keys = k_begin[s + 1] - begin;
        int64_t wide = padded(keys);
        for (int64_t h = 0; h < heads; h++, weights += queries * wide) {
            int64_t at = h * width;
            const float *found = out + first * row + at;
            transpose(keys, width, v + begin * v_row + at, v_row, turned);
            multiply(queries, wide, width, found, row, 1, turned, wide, scores, wide);
            for (int64_t m = 0; m < queries; m++) {
                const float *weight = weights + m * wide;
                float *score = scores + m * wide, mean = 0.0f;
#pragma omp simd reduction(+ : mean)
                for (int64_t p = 0; p < wide; p++) mean += weight[p] * score[p];
                SIMD for (int64_t p = 0; p < wide; p++) score[p] = weight[p] * (score[p] - mean) * over;
            }
            multiply(queries, width, keys, scores, wide, 1, k + begin * k_row + at, k_row, to_q + first * to_q_row + at, to_q_row);
            multiply(keys, width, queries, scores, 1, wide, q + first * q_row + at, q_row, to_k + begin * to_k_row + at, to_k_row);
            multiply(keys, width, queries, weights, 1, wide, found, row, to_v + begin * to_v_row + at, to_v_row);
        }
    }
    free(scores);
    free(turned);
}

/* Dropout: x times `scale` where its draw is at least `least`, else 0; added to y, where that is not NULL. */
void nmt_thin(int64_t n, const float *x, const int16_t *draws, int least, float scale, const float *y, float *out) {
    int16_t from = (int16_t)least;
    if (y)
        SIMD for (int64_t i = 0; i < n; i++) out[i] = y[i] + (draws[i] >= from ? x[i] * scale : 0.0f);
    else
        SIMD for (int64_t i = 0; i < n; i++) out[i] = draws[i] >= from ? x[i] * scale : 0.0f;
}

/* Label-smoothed cross-entropy of rows of logits, which become its gradient. sums: the smoothed loss, -log p. */
void nmt_cross_entropy(int64_t rows, int64_t width, float *logits, const int64_t *said, float smoothing, double *sums) {
    float floor = smoothing / width;
    for (int64_t m = 0; m < rows; m++, logits += width) {
        float top = -INFINITY, all = 0.0f, sum = 0.0f, chosen = logits[said[m]];
#pragma omp simd reduction(max : top) reduction(+ : all)
        for (int64_t i = 0; i < width; i++) top = larger(top, logits[i]), all += logits[i];
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) {
            logits[i] = exponential(logits[i] - top);
            sum += logits[i];
        }
        float log_z = top + logf(sum), over = 1.0f / sum;
        SIMD for (int64_t i = 0; i < width; i++) logits[i] = logits[i] * over - floor;
        logits[said[m]] -= 1.0f - smoothing;
        sums[0] -= (1.0 - smoothing) * (chosen - log_z) + smoothing * ((double)all / width - log_z);
        sums[1] -= chosen - log_z;
    }
}
