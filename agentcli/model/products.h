// Products of a few float32 rows with matrices of 16, 8 or 4 bits.
//
// bfloat16 and 8 bits with up to three or four rows are limited by memory bandwidth. Each thread reads several
// streams at once, far apart in its share of the matrix. The hardware prefetcher follows each of them, so
// that more cache lines are in flight than with one stream: on Zen 3, this reads 1.2 to 1.5 times as fast.
//
// bfloat16 and 8 bits with more rows are limited by arithmetic. Weights are widened in registers, in tiles
// of two outputs and several rows. A block of outputs is multiplied in pieces of the inputs that stay in
// the L1 cache. Later rows find the block's weights in the L2 cache, while the next block is prefetched.
//
// Processors with instructions for bfloat16 multiply pairs of 16-bit numbers: bfloat16 with inputs rounded
// to it, and 8 bits, widened to 16, with inputs rounded to 16 bits with a scale per piece, which loses less.
// Others multiply floats.
//
// 4 bits are multiplied as integers, with inputs rounded to 8 bits with a scale per group of 32. The weights
// of eight outputs lie together, so that each lane of a vector adds up one output: no sums across lanes.
//
// The result of a row depends neither on the other rows nor on the number of threads.

#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <omp.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef float f8 __attribute__((vector_size(32)));
typedef float f4 __attribute__((vector_size(16)));
typedef uint32_t u8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef uint8_t bytes __attribute__((vector_size(32)));
typedef int8_t byte8 __attribute__((vector_size(8)));

#define INLINE static inline __attribute__((always_inline))
#define SEPARATE static __attribute__((noinline))
#define EACH _Pragma("GCC unroll 16")  // otherwise compilers keep arrays of vectors in memory
#define GROUP 32
#define AHEAD 4096   // prefetch distance in bytes
#define LINE 64      // bytes of a cache line
#define MOST 8       // the most rows of a panel
#define PANEL 8      // outputs whose weights of 4 bits are multiplied together
#define ROWS 16      // the most rows at once otherwise
#define DEPTH 1024   // inputs of a piece

// What products of 16 and 8 bits are made of: vectors of sums, and of STEP inputs or weights.
#ifdef __AVX512BF16__
typedef float f16 __attribute__((vector_size(64)));
typedef f16 lanes;
typedef uint16_t element;
#define LANES 16
#define STEP 32
#define TILE 8       // the most rows of a tile
#define STREAMED 4   // the most rows that are limited by memory bandwidth
#define NEAR 768     // prefetch distance of their streams in bytes: Zen 4 reads up to a tenth faster
#define BLOCK 8      // pairs of outputs in a block
#else
typedef f8 lanes;
typedef float element;
#define LANES 8
#define STEP 8
#define TILE 4
#define STREAMED 3
#define NEAR -1      // none: the hardware's prefetcher does as well
#define BLOCK 16
#endif

INLINE f8 load(const float *p) { f8 v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(float *p, f8 v) { memcpy(p, &v, sizeof v); }
INLINE float sum(f8 v) {
    f4 half = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
    half += __builtin_shufflevector(half, half, 2, 3, 0, 1);
    return half[0] + half[1];
}

// Sums of neighbours: of quarters (128 bits) of a, then of b, or of numbers, within the quarters, of a and b.
#define QUARTERS8(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + \
                        __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define NUMBERS8(a, b) __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + \
                       __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15)
// The sums of the lanes of 8 vectors; each by itself would take three times as many instructions.
INLINE f8 totals8(const f8 *v) {
    f8 half[4];
    EACH for (int i = 0; i < 4; i++) half[i] = QUARTERS8(v[i], v[i + 4]);
    f8 low = NUMBERS8(half[0], half[1]), high = NUMBERS8(half[2], half[3]);
    return NUMBERS8(low, high);
}

// Force a value into a register: compilers would reload it for each use.
#ifdef __AVX2__
#define KEEP(v) __asm__("" : "+v"(v))
#else
#define KEEP(v)
#endif

// Load and widen numbers. Compilers turn the portable version into five instructions instead of one.
#ifdef __AVX2__
// A separate load: folded into the conversion, it reads memory a tenth slower.
INLINE __m128i half(const void *p) {
    __m128i v = _mm_loadu_si128((const __m128i *)p);
    KEEP(v);
    return v;
}
INLINE __m128i quarter(const void *p) { return _mm_loadl_epi64((const __m128i *)p); }
INLINE f8 from_bf16(const uint16_t *p) {
    return (f8)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half(p)), 16);
}
INLINE i8 from_int8(const int8_t *p) { return (i8)_mm256_cvtepi8_epi32(quarter(p)); }
#else
#define WIDENED(name, to, from, count, made) \
    INLINE to name(const from *p) { \
        to v; \
        for (int i = 0; i < count; i++) v[i] = made; \
        return v; \
    }
WIDENED(bf16_bits, u8, uint16_t, 8, (uint32_t)p[i] << 16)
INLINE f8 from_bf16(const uint16_t *p) { return (f8)bf16_bits(p); }
WIDENED(from_int8, i8, int8_t, 8, p[i])
#endif

// Multiplies a group of inputs with the weights of 8 outputs: byte 4 o + j of q[i] is of input 4 i + j.
#ifdef __AVX2__
INLINE __m256i add_products(__m256i sums, bytes q, __m256i x) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpbusd_epi32(sums, (__m256i)q, x);
#elif defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sums, (__m256i)q, x);
#else  // pairs, in 16 bits: those of a group add up to 16 * 15 * 127 at most
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16((__m256i)q, x));
#endif
}
INLINE i8 dot_group(const bytes *q, const int8_t *x) {
    __m256i sums = _mm256_setzero_si256();
    EACH for (int i = 0; i < 8; i++) {
        int32_t four;
        memcpy(&four, x + 4 * i, sizeof four);
        sums = add_products(sums, q[i], _mm256_set1_epi32(four));
    }
#if !(defined(__AVX512VNNI__) && defined(__AVX512VL__)) && !defined(__AVXVNNI__)
    sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
#endif
    return (i8)sums;
}
#else
INLINE i8 dot_group(const bytes *q, const int8_t *x) {
    i8 sums = {0};
    for (int i = 0; i < GROUP; i++)
        for (int o = 0; o < 8; o++) sums[o] += q[i / 4][4 * o + i % 4] * x[i];
    return sums;
}
#endif

typedef struct {
    const void *weight;      // (outputs, inputs): bfloat16 (16 bits), int8 (8), or packed (4, see below)
    const void *scales;      // 8 bits: (outputs,) float; 4 bits: (outputs / 8, inputs / 32, 8) bfloat16
    const uint16_t *zeros;   // 4 bits: like scales
    const float *bias;       // may be null
    long bits, outputs, inputs;  // inputs is a multiple of 64
} Matrix;
// 4 bits: w = (q - 8) * scale + zero, in panels of 8 outputs, the last filled up: (outputs / 8, inputs / 32,
// 4, 8, 4) bytes; byte (panel, group, i, output, j) has input 8 i + j in its low bits, 8 i + 4 + j in its high.

// --- weights of 4 bits as integers -------------------------------------------------------------

// A group of inputs of a row: x = q * scale; total is the sum of its rounded x.
typedef struct {
    float scale, total;
    int8_t q[GROUP];
} Group;

static void round_group(Group *to, const float *from) {
    i8 bits = {0}, total = {0};  // the bits of positive floats compare as integers
    for (int i = 0; i < GROUP; i += 8) {
        i8 size = (i8)load(from + i) & 0x7fffffff, larger = size > bits;
        bits = (size & larger) | (bits & ~larger);
    }
    int32_t largest = 0;
    for (int i = 0; i < 8; i++) largest = bits[i] > largest ? bits[i] : largest;
    float most;
    memcpy(&most, &largest, sizeof most);
    float inverse = most > 0 ? 127 / most : 0;
    for (int i = 0; i < GROUP; i += 8) {
        i8 whole = (i8)(load(from + i) * inverse + 12582912.0f) - 0x4b400000;  // rounds to integers
        byte8 narrow = __builtin_convertvector(whole, byte8);
        memcpy(to->q + i, &narrow, sizeof narrow);
        total += whole;
    }
    to->scale = most / 127;
    to->total = to->scale * sum(__builtin_convertvector(total, f8));
}

// The rows of x (rows, k), for tiles of MOST rows: (k / GROUP, MOST) each; the last has fewer rows.
static Group *round_inputs(const float *x, long rows, long k) {
    long groups = k / GROUP;
    Group *all = malloc(rows * groups * sizeof(Group));
#pragma omp parallel for schedule(static) if (rows > 4)
    for (long row = 0; row < rows; row++) {
        long first = row / MOST * MOST, now = rows - first < MOST ? rows - first : MOST;
        Group *to = all + first * groups + (row - first);
        for (long g = 0; g < groups; g++) round_group(to + g * now, x + row * k + g * GROUP);
    }
    return all;
}

// Computes PANEL outputs of a few rows.
INLINE void panel(float *y, const Group *x, const Matrix *w, long first, int rows) {
    f8 acc[MOST] = {0};
    long groups = w->inputs / GROUP, start = first * groups;
    const uint8_t *from = (const uint8_t *)w->weight + start * GROUP / 2;
    const uint16_t *scales = (const uint16_t *)w->scales + start, *zeros = w->zeros + start;
    for (long g = 0; g < groups; g++, x += rows, from += PANEL * GROUP / 2) {
        f8 scale = from_bf16(scales + g * PANEL), low = from_bf16(zeros + g * PANEL) - 8 * scale;
        bytes q[8];
        for (int at = 0; at < PANEL * GROUP / 2; at += LINE) __builtin_prefetch(from + at + AHEAD);
        EACH for (int i = 0; i < 4; i++) {
            bytes pairs;
            memcpy(&pairs, from + sizeof pairs * i, sizeof pairs);
            q[2 * i] = pairs & 15;
            q[2 * i + 1] = pairs >> 4;
        }
        EACH for (int row = 0; row < rows; row++) {
            f8 dot = __builtin_convertvector(dot_group(q, x[row].q), f8);
            acc[row] += low * x[row].total;
            acc[row] += dot * (scale * x[row].scale);
        }
    }
    long count = w->outputs - first < PANEL ? w->outputs - first : PANEL;
    for (int row = 0; row < rows; row++)
        for (long i = 0; i < count; i++)
            y[row * w->outputs + first + i] = acc[row][i] + (w->bias ? w->bias[first + i] : 0);
}

static void int4_product(float *y, const float *x, const Matrix *w, long rows) {
    Group *rounded = round_inputs(x, rows, w->inputs);
#pragma omp parallel for schedule(static)
    for (long first = 0; first < w->outputs; first += PANEL)
        for (long row = 0; row < rows; row += MOST) {  // later rows find the weights in the cache
            float *to = y + row * w->outputs;
            const Group *of = rounded + row * w->inputs / GROUP;
            switch (rows - row) {  // constants, so that the compiler keeps the sums in registers
                case 1: panel(to, of, w, first, 1); break;
                case 2: panel(to, of, w, first, 2); break;
                case 3: panel(to, of, w, first, 3); break;
                case 4: panel(to, of, w, first, 4); break;
                case 5: panel(to, of, w, first, 5); break;
                case 6: panel(to, of, w, first, 6); break;
                case 7: panel(to, of, w, first, 7); break;
                default: panel(to, of, w, first, MOST);
            }
        }
    free(rounded);
}

// --- weights of 16 and 8 bits as floats --------------------------------------------------------

// The rows of x (rows, k), for tiles of `size` rows: (k / STEP, size, STEP) each, in the order of `weights`.
typedef struct {
    element *values;
    float *scales;  // (pieces, rows) if they are integers: x = value * scale
} Inputs;

#ifdef __AVX512BF16__
#define QUARTERS16(a, b) \
    __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) + \
    __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
#define NUMBERS16(a, b) \
    __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) + \
    __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31)
INLINE lanes totals(const lanes *v) {  // of 16, like totals8
    lanes part[4];
    EACH for (int i = 0; i < 4; i++) {
        lanes first = QUARTERS16(v[i], v[i + 4]), second = QUARTERS16(v[i + 8], v[i + 12]);
        part[i] = QUARTERS16(first, second);
    }
    lanes low = NUMBERS16(part[0], part[1]), high = NUMBERS16(part[2], part[3]);
    return NUMBERS16(low, high);
}
INLINE int integers(long bits) { return bits == 8; }
INLINE lanes inputs(const element *p) { return (lanes)_mm512_loadu_si512(p); }
INLINE lanes weights(const char *w, long bits, long i) {
    if (bits == 8) return (lanes)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(w + i)));
    return (lanes)_mm512_loadu_si512(w + 2 * i);
}
INLINE lanes multiplied(lanes sums, lanes w, lanes x, long bits) {
    if (bits == 8) return (lanes)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)w, (__m512i)x);
    return (lanes)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w, (__m512bh)x);
}
INLINE lanes added(lanes acc, lanes sums, float scale) {
    return (lanes)_mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)sums), _mm512_set1_ps(scale), (__m512)acc);
}

// Rounds `count` inputs of a row, a piece; returns their scale.
INLINE float round_piece(element *to, const float *x, long bits, long count, long apart) {
    __m512 most = _mm512_setzero_ps(), invalid = most;  // NaN, if an input is not finite
    for (long i = 0; bits == 8 && i < count; i += 16) {
        __m512 a = _mm512_loadu_ps(x + i);
        most = _mm512_max_ps(most, _mm512_abs_ps(a));
        invalid += a * 0;
    }
    float largest = _mm512_reduce_max_ps(most);
    __m512 inverse = _mm512_set1_ps(largest > 0 ? 32767 / largest : 0);
    for (long i = 0; i < count; i += STEP, to += apart) {
        __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + 16);
        if (bits == 8) {
            __m512i low = _mm512_cvtps_epi32(a * inverse), high = _mm512_cvtps_epi32(b * inverse);
            _mm256_storeu_si256((__m256i *)to, _mm512_cvtsepi32_epi16(low));
            _mm256_storeu_si256((__m256i *)(to + 16), _mm512_cvtsepi32_epi16(high));
        } else {
            __m512bh both = _mm512_cvtne2ps_pbh(b, a);
            memcpy(to, &both, sizeof both);
        }
    }
    return largest / 32767 + _mm512_reduce_add_ps(invalid);
}
#else
INLINE lanes totals(const lanes *v) { return totals8(v); }
INLINE int integers(long bits) { return bits < 0; }
INLINE lanes inputs(const element *p) { return load(p); }
// Of 8 bits, without the scale. For bfloat16, even and odd weights, which share a lane, take turns as
// vectors: no shuffle is needed.
INLINE lanes weights(const char *w, long bits, long i) {
    if (bits == 8) return __builtin_convertvector(from_int8((const int8_t *)w + i), f8);
    u8 both;
    memcpy(&both, w + 2 * (i & ~15L), sizeof both);
    return (f8)(i & 8 ? both & 0xffff0000 : both << 16);
}
INLINE lanes multiplied(lanes sums, lanes w, lanes x, long bits) { return sums + w * x; }
INLINE lanes added(lanes acc, lanes sums, float scale) { return acc + sums * scale; }

INLINE float round_piece(element *to, const float *x, long bits, long count, long apart) {
    for (long i = 0; i < count; i += 2 * STEP, to += 2 * apart) {
        f8 a = load(x + i), b = load(x + i + STEP);
        store(to, bits == 8 ? a : __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14));
        store(to + apart, bits == 8 ? b : __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15));
    }
    return 1;
}
#endif

static Inputs pack_inputs(const float *x, long rows, long k, long bits, long size) {
    long values = rows * k * sizeof(element), pieces = (k + DEPTH - 1) / DEPTH;
    char *memory = aligned_alloc(64, (values + pieces * rows * sizeof(float) + 63) & ~63L);
    Inputs all = {(element *)memory, (float *)(memory + values)};
#pragma omp parallel for schedule(static) if (rows > 4)
    for (long m = 0; m < rows; m++) {
        long first = m / size * size, now = rows - first < size ? rows - first : size;
        element *to = all.values + first * k + STEP * (m - first);
        for (long at = 0; at < k; at += DEPTH) {
            long count = k - at < DEPTH ? k - at : DEPTH;
            all.scales[at / DEPTH * rows + m] = round_piece(to + at * now, x + m * k + at, bits, count, STEP * now);
        }
    }
    return all;
}

// A part of a product: outputs `first`, first + apart ... (those beyond `last` are `last`) of a few rows.
typedef struct {
    float *y;             // of the first of the rows
    const element *x;     // packed, from input `at` on
    const float *scales;  // of x
    lanes *sums;          // (outputs, rows): of the inputs before `at`
    long first, apart, last, at;
    long count;           // inputs to multiply; the last of them give y
    long ahead;           // how many bytes later weights are prefetched; negative: not
} Tile;

// Holds inputs or weights in registers, whichever are fewer.
INLINE void multiply_tile(const Matrix *matrix, const Tile *tile, long bits, int outputs, int rows) {
    const Tile t = *tile;
    const element *x = t.x;
    const char *w[6];
    lanes sums[16] = {0}, held[TILE];
    for (int o = 0; o < outputs; o++) {
        long one = t.first + o * t.apart;
        w[o] = (const char *)matrix->weight + ((one < t.last ? one : t.last) * matrix->inputs + t.at) * bits / 8;
    }
    if (t.at && !integers(bits)) EACH for (int i = 0; i < outputs * rows; i++) sums[i] = t.sums[i];
    for (long i = 0; i < t.count; i += 8 * LINE / bits) {
        if (t.ahead >= 0)
            EACH for (int o = 0; o < outputs; o++) __builtin_prefetch(w[o] + t.ahead + i * bits / 8, 0, 2);
        EACH for (long at = i; at < i + 8 * LINE / bits; at += STEP, x += STEP * rows) {
            if (rows < outputs) {
                EACH for (int m = 0; m < rows; m++) {
                    held[m] = inputs(x + STEP * m);
                    KEEP(held[m]);
                }
                EACH for (int o = 0; o < outputs; o++) {
                    lanes weight = weights(w[o], bits, at);
                    KEEP(weight);
                    EACH for (int m = 0; m < rows; m++) {
                        int one = o * rows + m;
                        sums[one] = multiplied(sums[one], weight, held[m], bits);
                    }
                }
            } else {
                EACH for (int o = 0; o < outputs; o++) {
                    held[o] = weights(w[o], bits, at);
                    KEEP(held[o]);
                }
                EACH for (int m = 0; m < rows; m++) {
                    lanes input = inputs(x + STEP * m);
                    KEEP(input);
                    EACH for (int o = 0; o < outputs; o++) {
                        int one = o * rows + m;
                        sums[one] = multiplied(sums[one], held[o], input, bits);
                    }
                }
            }
        }
    }
    if (integers(bits))
        EACH for (int i = 0; i < outputs * rows; i++)
            sums[i] = added(t.at ? t.sums[i] : (lanes){0}, sums[i], t.scales[i % rows]);
    if (t.at + t.count < matrix->inputs) {
        EACH for (int i = 0; i < outputs * rows; i++) t.sums[i] = sums[i];
        return;
    }
    lanes all[16 / LANES];  // (outputs, rows)
    for (int i = 0; i * LANES < outputs * rows; i++) all[i] = totals(sums + i * LANES);
    for (int o = 0; o < outputs; o++) {
        long one = t.first + o * t.apart;
        if (one > t.last) one = t.last;
        float scale = bits == 8 ? ((const float *)matrix->scales)[one] : 1;
        float bias = matrix->bias ? matrix->bias[one] : 0;
        for (int m = 0; m < rows; m++) t.y[m * matrix->outputs + one] = ((float *)all)[o * rows + m] * scale + bias;
    }
}

// Functions of their own, with constant sizes, so that the compiler keeps the sums in registers.
typedef void MultiplyTile(const Matrix *, const Tile *);
#define SIZED(outputs, rows) \
    SEPARATE void tile8_##outputs##_##rows(const Matrix *w, const Tile *t) { multiply_tile(w, t, 8, outputs, rows); } \
    SEPARATE void tile16_##outputs##_##rows(const Matrix *w, const Tile *t) { multiply_tile(w, t, 16, outputs, rows); }
#define NAMED(outputs, rows) {tile8_##outputs##_##rows, tile16_##outputs##_##rows}
SIZED(6, 1) SIZED(4, 2) SIZED(3, 3)
SIZED(2, 1) SIZED(2, 2) SIZED(2, 3) SIZED(2, 4)
#if TILE == 8
SIZED(4, 4)
SIZED(2, 5) SIZED(2, 6) SIZED(2, 7) SIZED(2, 8)
#endif
static const struct { long outputs; MultiplyTile *of[2]; } streaming[] = {
    {6, NAMED(6, 1)}, {4, NAMED(4, 2)}, {3, NAMED(3, 3)},
#if STREAMED == 4
    {4, NAMED(4, 4)},
#endif
};
static MultiplyTile *const pairs[][2] = {
    NAMED(2, 1), NAMED(2, 2), NAMED(2, 3), NAMED(2, 4),
#if TILE == 8
    NAMED(2, 5), NAMED(2, 6), NAMED(2, 7), NAMED(2, 8),
#endif
};

// Computes the outputs first .. last of up to STREAMED rows, several at once.
static void stream(float *y, Inputs x, const Matrix *w, long first, long last, long rows) {
    MultiplyTile *multiply = streaming[rows - 1].of[w->bits == 16];
    long k = w->inputs, piece = integers(w->bits) ? DEPTH : k;
    long outputs = streaming[rows - 1].outputs, apart = (last - first + outputs - 1) / outputs;
    lanes sums[16];
    for (long o = first; o < first + apart; o++)
        for (long at = 0; at < k; at += piece) {
            Tile tile = {y, x.values + at * rows, x.scales + at / DEPTH * rows, sums, o, apart, last - 1, at,
                         k - at < piece ? k - at : piece, NEAR};
            multiply(w, &tile);
        }
}

// Computes the outputs first .. last of more rows, in tiles of `size` rows: two at once, in blocks.
static void multiply_blocks(float *y, Inputs x, const Matrix *w, long first, long last, long rows, long size) {
    long n = w->outputs, k = w->inputs, apart = (last - first + 1) / 2;
    lanes sums[2 * BLOCK * ROWS];  // by tile, then pair, then output, then row
    for (long begin = first; begin < first + apart; begin += BLOCK) {
        long count = first + apart - begin < BLOCK ? first + apart - begin : BLOCK;
        for (long at = 0; at < k; at += DEPTH)
            for (long m = 0; m < rows; m += size) {
                long now = rows - m < size ? rows - m : size;
                long ahead = m == 0 ? BLOCK * k * w->bits / 8 : 0;  // the first tile prefetches the next block
                Tile tile = {y + m * n, x.values + m * k + at * now, x.scales + at / DEPTH * rows + m,
                             sums + 2 * m * count, begin, apart, last - 1, at,
                             k - at < DEPTH ? k - at : DEPTH, ahead};
                for (; tile.first < begin + count; tile.first++, tile.sums += 2 * now)
                    pairs[now - 1][w->bits == 16](w, &tile);
            }
    }
}

static void float_product(float *y, const float *x, const Matrix *w, long rows) {
    long tiles = (rows + TILE - 1) / TILE, size = (rows + tiles - 1) / tiles;  // of similar size
    Inputs own = pack_inputs(x, rows, w->inputs, w->bits, size);
#pragma omp parallel
    {
        long threads = omp_get_num_threads(), thread = omp_get_thread_num();
        long first = w->outputs * thread / threads, last = w->outputs * (thread + 1) / threads;
        if (rows <= STREAMED) stream(y, own, w, first, last, rows);
        else multiply_blocks(y, own, w, first, last, rows, size);
    }
    free(own.values);
}

// Whether products of bfloat16 round their inputs to it, because the processor multiplies it.
int multiplies_bfloat16(void) { return STEP == 32; }

// y (rows, outputs) = x (rows, inputs) @ matrix.T + bias.
void linear(float *y, const float *x, const Matrix *matrix, long rows) {
    const Matrix w = *matrix;
    if (w.bits == 4) return int4_product(y, x, &w, rows);
    for (long m = 0; m < rows; m += ROWS) {
        long now = rows - m < ROWS ? rows - m : ROWS;
        float_product(y + m * w.outputs, x + m * w.inputs, &w, now);
    }
}

// Dequantises a matrix of 4 bits to floats (outputs, inputs).
void widen_int4(float *wide, const Matrix *matrix) {
    const Matrix w = *matrix;
    long groups = w.inputs / GROUP;
    u8 shifts = {0, 8, 16, 24, 4, 12, 20, 28};  // of the eight inputs in four bytes
#pragma omp parallel for schedule(static)
    for (long o = 0; o < w.outputs; o++)
        for (long g = 0; g < groups; g++) {
            long start = (o / PANEL * groups + g) * PANEL, in = o % PANEL;
            const uint8_t *from = (const uint8_t *)w.weight + start * GROUP / 2 + 4 * in;
            f8 scale = from_bf16((const uint16_t *)w.scales + start);
            f8 low = from_bf16(w.zeros + start) - 8 * scale;
            for (int i = 0; i < GROUP; i += 8) {
                uint32_t inputs;
                memcpy(&inputs, from + 4 * i, sizeof inputs);
                f8 q = __builtin_convertvector(((u8){0} + inputs) >> shifts & 15, f8);
                store(wide + o * w.inputs + g * GROUP + i, q * scale[in] + low[in]);
            }
        }
}
