/* What a Transformer does on a CPU between its matrix products when it learns, forwards and backwards.

   The same in PyTorch is the plain path of the model and of its loss; tests hold this file to it.

   Attention is that of sentences lying end to end: sentence s has the queries q_begin[s] to q_begin[s + 1] and the keys
   and values k_begin[s] to k_begin[s + 1]; each of its H heads is W numbers wide, a multiple of LANES. A row of weights
   has room for whole vectors, with zeros behind the last key.

   What is `half` lies in memory as bf16; computed is in fp32. */

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

/* A head of some rows of a stream: where it is, and how far it is from one row to the next. */
typedef struct {
    float *at;
    int64_t row;
} Head;

/* Head `at` of rows that begin at `first`; of bf16 a copy in `room`. */
static Head head(int half, const void *x, int64_t row, int64_t first, int64_t rows, int64_t at, int64_t width, float *room) {
    if (!half) return (Head){(float *)x + first * row + at, row};
    const Bf16 *from = (const Bf16 *)x + first * row + at;
    for (int64_t m = 0; m < rows; m++) widen(width, from + m * row, room + m * width);
    return (Head){room, width};
}

/* Where such a head is to be written: there itself, or in `room`, from where `settle` takes it. */
static Head space(int half, void *x, int64_t row, int64_t first, int64_t at, int64_t width, float *room) {
    return half ? (Head){room, width} : (Head){(float *)x + first * row + at, row};
}

static void settle(int half, Head from, void *x, int64_t row, int64_t first, int64_t rows, int64_t at, int64_t width) {
    if (!half) return;
    Bf16 *to = (Bf16 *)x + first * row + at;
    for (int64_t m = 0; m < rows; m++) narrow(width, from.at + m * from.row, to + m * row);
}

/* The most rows of a sentence. */
static int64_t longest(int64_t sentences, const int32_t *begin) {
    int64_t most = 0;
    for (int64_t s = 0; s < sentences; s++) most = begin[s + 1] - begin[s] > most ? begin[s + 1] - begin[s] : most;
    return most;
}

/* Equation 1: the weights, and what they find, out [all queries, heads * width]. */
void nmt_attention(int64_t sentences, int64_t heads, int64_t width, const int32_t *q_begin, const int32_t *k_begin,
                   int half, const void *q, int64_t q_row, const void *k, int64_t k_row, const void *v, int64_t v_row,
                   int causal, float *weights, void *out) {
    int64_t most = padded(longest(sentences, k_begin)), most_q = longest(sentences, q_begin), out_row = heads * width;
    float over = 1.0f / sqrtf((float)width), *turned = malloc(3 * width * (most + most_q) * sizeof(float));
    float *room_k = turned + width * most, *room_v = room_k + width * most, *room_q = room_v + width * most;
    float *room_out = room_q + width * most_q;
    for (int64_t s = 0; s < sentences; s++) {
        int64_t first = q_begin[s], queries = q_begin[s + 1] - first, begin = k_begin[s], keys = k_begin[s + 1] - begin;
        int64_t wide = padded(keys);
        for (int64_t h = 0; h < heads; h++, weights += queries * wide) {
            int64_t at = h * width;
            Head key = head(half, k, k_row, begin, keys, at, width, room_k);
            Head query = head(half, q, q_row, first, queries, at, width, room_q);
            Head value = head(half, v, v_row, begin, keys, at, width, room_v);
            Head found = space(half, out, out_row, first, at, width, room_out);
            transpose(keys, width, key.at, key.row, turned);
            multiply(queries, wide, width, query.at, query.row, 1, turned, wide, weights, wide);
            for (int64_t m = 0; m < queries; m++) soften(causal ? m + 1 : keys, wide, over, weights + m * wide);
            multiply(queries, width, keys, weights, wide, 1, value.at, value.row, found.at, found.row);
            settle(half, found, out, out_row, first, queries, at, width);
        }
    }
    free(turned);
}

/* Its gradients, of out [all queries, heads * width], to those of queries, keys and values. */
void nmt_attention_back(int64_t sentences, int64_t heads, int64_t width, const int32_t *q_begin, const int32_t *k_begin,
                        int half, const void *q, int64_t q_row, const void *k, int64_t k_row, const void *v, int64_t v_row,
                        const float *weights, const void *out, void *to_q, int64_t to_q_row, void *to_k,
                        int64_t to_k_row, void *to_v, int64_t to_v_row) {
    int64_t most = padded(longest(sentences, k_begin)), most_q = longest(sentences, q_begin), row = heads * width;
    float over = 1.0f / sqrtf((float)width), *turned = malloc((5 * width * most + (3 * width + most) * most_q) * sizeof(float));
    float *room_k = turned + width * most, *room_v = room_k + width * most, *room_to_k = room_v + width * most;
    float *room_to_v = room_to_k + width * most, *room_q = room_to_v + width * most, *room_out = room_q + width * most_q;
    float *room_to_q = room_out + width * most_q, *scores = room_to_q + width * most_q;
    for (int64_t s = 0; s < sentences; s++) {
        int64_t first = q_begin[s], queries = q_begin[s + 1] - first, begin = k_begin[s], keys = k_begin[s + 1] - begin;
        int64_t wide = padded(keys);
        for (int64_t h = 0; h < heads; h++, weights += queries * wide) {
            int64_t at = h * width;
            Head found = head(half, out, row, first, queries, at, width, room_out);
            Head key = head(half, k, k_row, begin, keys, at, width, room_k);
            Head query = head(half, q, q_row, first, queries, at, width, room_q);
            Head value = head(half, v, v_row, begin, keys, at, width, room_v);
            Head to_query = space(half, to_q, to_q_row, first, at, width, room_to_q);
            Head to_key = space(half, to_k, to_k_row, begin, at, width, room_to_k);
            Head to_value = space(half, to_v, to_v_row, begin, at, width, room_to_v);
            transpose(keys, width, value.at, value.row, turned);
            multiply(queries, wide, width, found.at, found.row, 1, turned, wide, scores, wide);
            for (int64_t m = 0; m < queries; m++) {
                const float *weight = weights + m * wide;
                float *score = scores + m * wide, mean = 0.0f;
#pragma omp simd reduction(+ : mean)
                for (int64_t p = 0; p < wide; p++) mean += weight[p] * score[p];
                SIMD for (int64_t p = 0; p < wide; p++) score[p] = weight[p] * (score[p] - mean) * over;
            }
            multiply(queries, width, keys, scores, wide, 1, key.at, key.row, to_query.at, to_query.row);
            multiply(keys, width, queries, scores, 1, wide, query.at, query.row, to_key.at, to_key.row);
            multiply(keys, width, queries, weights, 1, wide, found.at, found.row, to_value.at, to_value.row);
            settle(half, to_query, to_q, to_q_row, first, queries, at, width);
            settle(half, to_key, to_k, to_k_row, begin, keys, at, width);
            settle(half, to_value, to_v, to_v_row, begin, keys, at, width);
        }
    }
    free(turned);
}

/* Dropout: x times `scale` where its draw is at least `least`, else 0; added to y, where that is not NULL. `half_x` is of
   x, `half` of y and of what comes out. */
#define THIN(OF_X, OF_Y, TO)                                                                             \
    if (y)                                                                                               \
        SIMD for (int64_t i = 0; i < n; i++) to[i] = TO(OF_Y(y[i]) + (draws[i] >= from ? OF_X(x[i]) * scale : 0.0f)); \
    else                                                                                                 \
        SIMD for (int64_t i = 0; i < n; i++) to[i] = TO(draws[i] >= from ? OF_X(x[i]) * scale : 0.0f);
#define THINNED(NAME, X, Y, OF_X, OF_Y, TO)                                                              \
    static void NAME(int64_t n, const X *x, const int16_t *draws, int16_t from, float scale, const Y *y, Y *to) { \
        THIN(OF_X, OF_Y, TO)                                                                             \
    }
THINNED(thin, float, float, (float), (float), (float))
THINNED(thin_widening, Bf16, float, widened, (float), (float))
THINNED(thin_narrowing, float, Bf16, (float), widened, narrowed)
THINNED(thin_half, Bf16, Bf16, widened, widened, narrowed)

void nmt_thin(int64_t n, int half_x, const void *x, const int16_t *draws, int least, float scale, int half, const void *y,
              void *out) {
    int16_t from = (int16_t)least;
    if (half_x)
        half ? thin_half(n, x, draws, from, scale, y, out) : thin_widening(n, x, draws, from, scale, y, out);
    else
        half ? thin_narrowing(n, x, draws, from, scale, y, out) : thin(n, x, draws, from, scale, y, out);
}

/* Of a row of logits its gradient, which takes their place; sums: the smoothed loss, -log p. */
static void cross_entropy(int64_t width, float *row, int64_t said, float smoothing, double *sums) {
    float floor = smoothing / width, top = -INFINITY, all = 0.0f, sum = 0.0f, chosen = row[said];
#pragma omp simd reduction(max : top) reduction(+ : all)
    for (int64_t i = 0; i < width; i++) top = larger(top, row[i]), all += row[i];
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) {
        row[i] = exponential(row[i] - top);
        sum += row[i];
    }
    float log_z = top + logf(sum), over = 1.0f / sum;
    SIMD for (int64_t i = 0; i < width; i++) row[i] = row[i] * over - floor;
    row[said] -= 1.0f - smoothing;
    sums[0] -= (1.0 - smoothing) * (chosen - log_z) + smoothing * ((double)all / width - log_z);
    sums[1] -= chosen - log_z;
}

/* Label-smoothed cross-entropy of rows of logits, which become its gradient. */
void nmt_cross_entropy(int64_t rows, int64_t width, int half, void *logits, const int64_t *said, float smoothing,
                       double *sums) {
    float *room = half ? malloc(width * sizeof(float)) : NULL;
    for (int64_t m = 0; m < rows; m++) {
        Head row = head(half, logits, width, m, 1, 0, width, room);
        cross_entropy(width, row.at, said[m], smoothing, sums);
        settle(half, row, logits, width, m, 1, 0, width);
    }
    free(room);
}
