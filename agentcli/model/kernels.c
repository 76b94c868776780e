// A transformer block for decoding on a CPU: a few tokens of a few rows.
//
// Plain C with vectors of 8 floats, which the compiler maps to the CPU's instructions. Activations are
// float32. products.h has the matrix products.

#include <math.h>

#include "products.h"

#define LARGEST_HEAD 512
#define GATE 12  // channels that gate nanochat's value embeddings
#define KEYS 64  // keys at once, whose share of a head stays in the L1 cache with many queries

// --- norm, activation, attention ---------------------------------------------------------------

// y = x / sqrt(mean(x^2) + eps) * (weight + offset), row by row; weight may be null.
INLINE void norm_row(float *y, const float *x, const float *weight, float offset, float eps, long n) {
    f8 squares = {0};
    long i = 0;
    for (; i + 8 <= n; i += 8) squares += load(x + i) * load(x + i);
    float total = sum(squares);
    for (; i < n; i++) total += x[i] * x[i];
    float factor = 1 / sqrtf(total / n + eps);
    if (weight)
        for (i = 0; i < n; i++) y[i] = x[i] * factor * (weight[i] + offset);
    else
        for (i = 0; i < n; i++) y[i] = x[i] * factor;
}

// e^x to float32 precision: 2^n * e^r with |r| <= ln 2 / 2 (Cephes, expf).
INLINE f8 exp8(f8 x) {
    f8 lowest = {-87, -87, -87, -87, -87, -87, -87, -87};
    i8 below = x < lowest, above = x > -lowest;
    x = (f8)(((i8)lowest & below) | ((i8)(-lowest) & above) | ((i8)x & ~(below | above)));
    f8 shifted = x * 1.44269504088896341f + 12582912.0f;  // rounds to the nearest integer
    f8 whole = shifted - 12582912.0f;
    f8 r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    f8 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    return (f8)((i8)p + (__builtin_convertvector(whole, i8) << 23));
}

enum { SILU, GELU, RELU2 };  // activations of the MLP; the first two are gated

// y (rows, n): the MLP's hidden activations. x is (rows, 2 n), gate and up, or (rows, n) if ungated; n is a
// multiple of 8.
static void activate(float *y, const float *x, int kind, long rows, long n) {
#pragma omp parallel for schedule(static) if (rows > 1)
    for (long m = 0; m < rows; m++) {
        const float *gate = x + (kind == RELU2 ? m * n : 2 * m * n), *up = gate + n;
        for (long i = 0; i < n; i += 8) {
            f8 g = load(gate + i);
            if (kind == RELU2) {
                g = (f8)((i8)g & (g > 0));
                store(y + m * n + i, g * g);
            } else {
                f8 slope = kind == GELU ? 1.5957691216057308f * (g + 0.044715f * g * g * g) : g;
                store(y + m * n + i, g / (1 + exp8(-slope)) * load(up + i));
            }
        }
    }
}

// The arguments of one step in one layer.
typedef struct {
    long batch, tokens;
    long start;                // position of the first token in every row, if positions is null
    const int64_t *positions;  // (batch, tokens), or null
    long capacity;             // slots per row of the KV cache
    float *k, *v;              // the KV cache of this layer: (batch, capacity, kv_heads, dim)
    const float *cos, *sin;    // (tables, tokens, rotated), with the signs of the rotation in sin
    long tables, rotated;      // 1 if rows share a table, else batch; rotated channels, even, or 0
    const float *values;       // (batch, tokens, kv_heads * dim), added to v through the gate, or null
} Step;

// The constants of a layer.
typedef struct {
    const float *attn_norm, *attn_post, *mlp_norm, *mlp_post;  // weights of the norms; may be null
    const float *q_norm, *k_norm;
    const float *gate;  // (kv_heads, GATE), of nanochat's value embeddings
    Matrix qkv, attn_proj, up, mlp_proj;
    long width, heads, kv_heads, dim;  // dim is a multiple of 8
    long window;                       // keys seen before a query's own; negative: all
    long qk;                           // norm of q and k: 0 none, 1 before, 2 after rotation
    long post;                         // whether attention and MLP are followed by norms
    long mlp;
    float scale, softcap, eps, offset;
} Block;

// Norms and rotates one head, in the order of the model.
INLINE void place(float *y, const float *x, const Block *b, const Step *s, const float *cos,
                  const float *sin, const float *weight) {
    long half = s->rotated / 2;
    float normed[LARGEST_HEAD];
    if (b->qk == 1) {
        norm_row(normed, x, weight, b->offset, b->eps, b->dim);
        x = normed;
    }
    for (long i = 0; i < half; i++) {
        y[i] = x[i] * cos[i] + x[half + i] * sin[i];
        y[half + i] = x[half + i] * cos[half + i] + x[i] * sin[half + i];
    }
    for (long i = s->rotated; i < b->dim; i++) y[i] = x[i];
    if (b->qk == 2) norm_row(y, y, weight, b->offset, b->eps, b->dim);
}

// The products of a query with eight keys, `stride` apart; those beyond `count` are of the last.
INLINE f8 scores_of(const float *q, const float *k, long stride, long count, const Block *b) {
    const float *keys[8];
    f8 sums[8] = {0};
    EACH for (int j = 0; j < 8; j++) keys[j] = k + (j < count ? j : count - 1) * stride;
    for (long i = 0; i < b->dim; i += 8) {
        f8 query = load(q + i);
        EACH for (int j = 0; j < 8; j++) sums[j] += query * load(keys[j] + i);
    }
    f8 scores = totals8(sums) * b->scale;
    for (int j = 0; b->softcap > 0 && j < 8; j++) scores[j] = b->softcap * tanhf(scores[j] / b->softcap);
    return scores;
}

// y += the values, `stride` apart, times their weights.
INLINE void add_values(float *y, const float *v, long stride, const float *weights, long count, int parts) {
    f8 sums[8];
    EACH for (int part = 0; part < parts; part++) sums[part] = load(y + 8 * part);
    for (long j = 0; j < count; j++)
        EACH for (int part = 0; part < parts; part++) sums[part] += weights[j] * load(v + j * stride + 8 * part);
    EACH for (int part = 0; part < parts; part++) store(y + 8 * part, sums[part]);
}

// A query of one head, and what is known of its softmax after some of its keys.
typedef struct {
    const float *q;
    float *y;           // (dim,): the sum of exp(score - most) * value
    long first, last;   // its keys
    float most, total;  // the largest score, and the sum of exp(score - most)
} Query;

// Attends with a query to those of its keys that are among start .. start + KEYS: the softmax is computed
// as it goes (Milakov and Gimelshein, arXiv:1805.02867), so that keys and values are read once for all queries.
static void attend(Query *query, const float *k, const float *v, const Block *b, long start) {
    long first = query->first > start ? query->first : start;
    long end = query->last < start + KEYS ? query->last + 1 : start + KEYS;
    long stride = b->kv_heads * b->dim, count = end - first;
    if (count <= 0) return;
    float scores[KEYS + 8], most = query->most;
    for (long j = 0; j < count; j += 8) {
        f8 eight = scores_of(query->q, k + (first + j) * stride, stride, count - j, b);
        store(scores + j, eight);
        for (int i = 0; i < 8; i++) most = eight[i] > most ? eight[i] : most;
    }
    float factor = exp8((f8){0} + (query->most - most))[0];
    f8 total = {0};
    for (long j = 0; j < count; j += 8) {
        f8 weight = exp8(load(scores + j) - most);
        for (long i = count - j; i < 8; i++) weight[i] = 0;
        store(scores + j, weight);
        total += weight;
    }
    query->total = query->total * factor + sum(total);
    query->most = most;
    for (long i = 0; i < b->dim; i += 8) store(query->y + i, load(query->y + i) * factor);
    long i = 0;
    for (; i + 64 <= b->dim; i += 64) add_values(query->y + i, v + first * stride + i, stride, scores, count, 8);
    for (; i + 32 <= b->dim; i += 32) add_values(query->y + i, v + first * stride + i, stride, scores, count, 4);
    for (; i < b->dim; i += 8) add_values(query->y + i, v + first * stride + i, stride, scores, count, 1);
}

// Computes the attention of a few new tokens, y (batch, tokens, heads, dim). First norms and rotates
// queries and keys in qkv (batch, tokens, heads + 2 kv_heads, dim), in place, and stores keys and values
// in the KV cache. x (batch, tokens, width), the input, gates the value embeddings.
static void attention(float *y, float *qkv, const float *x, const Block *b, const Step *s) {
    long all = b->heads + 2 * b->kv_heads, size = b->kv_heads * b->dim;
    long longest = s->start + s->tokens;
    for (long m = 0; m < s->batch * s->tokens; m++) {
        long row = m / s->tokens, t = m % s->tokens;
        long at = s->positions ? s->positions[m] : s->start + t;
        long table = (s->tables > 1 ? m : t) * s->rotated;
        float *heads = qkv + m * all * b->dim, *values = heads + b->heads * b->dim + size;
        longest = at + 1 > longest ? at + 1 : longest;
        for (long h = 0; h < b->heads + b->kv_heads; h++) {
            float placed[LARGEST_HEAD];
            place(placed, heads + h * b->dim, b, s, s->cos + table, s->sin + table,
                  h < b->heads ? b->q_norm : b->k_norm);
            memcpy(heads + h * b->dim, placed, b->dim * sizeof(float));
        }
        for (long h = 0; s->values && h < b->kv_heads; h++) {
            float opening = 0;
            for (int i = 0; i < GATE; i++) opening += x[m * b->width + i] * b->gate[h * GATE + i];
            opening = 3 / (1 + expf(-opening));
            for (long i = h * b->dim; i < (h + 1) * b->dim; i++)
                values[i] += opening * s->values[m * size + i];
        }
        long slot = (row * s->capacity + at) * size;
        memcpy(s->k + slot, heads + b->heads * b->dim, size * sizeof(float));
        memcpy(s->v + slot, values, size * sizeof(float));
    }
    long group = b->heads / b->kv_heads, pieces = s->batch * b->kv_heads, queries = s->tokens * group;
    long work = s->batch * s->tokens * b->heads * longest * b->dim;
#pragma omp parallel if (work > 65536)
    {
        Query *all_queries = malloc(queries * sizeof(Query));
#pragma omp for schedule(static)
        for (long piece = 0; piece < pieces; piece++) {
            long row = piece / b->kv_heads, head = piece % b->kv_heads;
            long first_slot = row * s->capacity * size + head * b->dim, from = longest, to = 0;
            for (long i = 0; i < queries; i++) {
                long m = row * s->tokens + i / group, h = head * group + i % group;
                long last = s->positions ? s->positions[m] : s->start + i / group;
                long first = b->window < 0 || b->window > last ? 0 : last - b->window;
                float *out = y + (m * b->heads + h) * b->dim;
                all_queries[i] = (Query){qkv + (m * all + h) * b->dim, out, first, last, -INFINITY, 0};
                memset(out, 0, b->dim * sizeof(float));
                from = first < from ? first : from;
                to = last > to ? last : to;
            }
            for (long start = from / KEYS * KEYS; start <= to; start += KEYS)
                for (long i = 0; i < queries; i++)
                    attend(all_queries + i, s->k + first_slot, s->v + first_slot, b, start);
            for (long i = 0; i < queries; i++)
                for (long at = 0; at < b->dim; at += 8)
                    store(all_queries[i].y + at, load(all_queries[i].y + at) / all_queries[i].total);
        }
        free(all_queries);
    }
}

static void norm(float *y, const float *x, const float *weight, const Block *b, long rows) {
    for (long m = 0; m < rows; m++)
        norm_row(y + m * b->width, x + m * b->width, weight, b->offset, b->eps, b->width);
}

// Computes gpt.py's Block: attention and MLP with residuals; x and y are (batch, tokens, width).
void block(float *y, const float *x, const Block *b, const Step *s) {
    long rows = s->batch * s->tokens, size = rows * b->width;
    long inner = b->mlp_proj.inputs, q = b->attn_proj.inputs;
    float *normed = malloc((size + rows * (b->qkv.outputs + q + b->up.outputs + inner) + size) * sizeof(float));
    float *qkv = normed + size, *seen = qkv + rows * b->qkv.outputs, *up = seen + rows * q;
    float *hidden = up + rows * b->up.outputs, *out = hidden + rows * inner;

    norm(normed, x, b->attn_norm, b, rows);
    linear(qkv, normed, &b->qkv, rows);
    attention(seen, qkv, normed, b, s);
    linear(out, seen, &b->attn_proj, rows);
    if (b->post) norm(out, out, b->attn_post, b, rows);
    for (long i = 0; i < size; i++) y[i] = x[i] + out[i];

    norm(normed, y, b->mlp_norm, b, rows);
    linear(up, normed, &b->up, rows);
    activate(hidden, up, b->mlp, rows, inner);
    linear(out, hidden, &b->mlp_proj, rows);
    if (b->post) norm(out, out, b->mlp_post, b, rows);
    for (long i = 0; i < size; i++) y[i] += out[i];
    free(normed);
}
