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
#define EACH _Pragma("GCC unroll 16")  // otherwise compilers keep arrays of vectors in memory
#define GROUP 32
#define AHEAD 4096   // prefetch distance in bytes
#define LINE 64      // bytes of a cache line
#define MOST 8       // the most rows of a panel
#define PANEL 8      // outputs whose weights of 4 bits are multiplied together
#define ROWS 16      // the most rows at once otherwise
#define STREAMS 6    // the most outputs read at once
#define DEPTH 1024   // inputs of a piece

// What products of 16 and 8 bits are made of: vectors of sums, and of STEP inputs or weights.
#ifdef __AVX512BF16__
typedef float f16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));
typedef f16 lanes;
typedef uint16_t element;
#define STEP 32
#define TILE 8       // the most rows of a tile
#define SUMS 18      // the most sums of a tile: with the operands, they fit the registers
#define BLOCK 8      // pairs of outputs in a block
#else
typedef f8 lanes;
typedef float element;
#define STEP 8
#define TILE 4
#define SUMS 9
#define BLOCK 16
#endif

INLINE f8 load(const float *p) { f8 v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(float *p, f8 v) { memcpy(p, &v, sizeof v); }
INLINE float sum(f8 v) {
    f4 half = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
    half += __builtin_shufflevector(half, half, 2, 3, 0, 1);
    return half[0] + half[1];
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
INLINE float total(lanes v) {
    return sum(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
               __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
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
    return acc + __builtin_convertvector((i16)sums, f16) * scale;
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
INLINE float total(lanes v) { return sum(v); }
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

// acc (outputs, rows) += the products of `count` packed inputs and the weights at each w. Prefetches the
// weights `ahead` bytes later, unless it is 0. Holds inputs or weights in registers, whichever are fewer.
INLINE void tile(lanes *acc, const element *x, const float *scales, const char *const *w, long ahead,
                 long bits, long count, int outputs, int rows) {
    lanes sums[SUMS], held[TILE];
    EACH for (int i = 0; i < outputs * rows; i++) sums[i] = integers(bits) ? (lanes){0} : acc[i];
    for (long i = 0; i < count; i += 8 * LINE / bits) {
        if (ahead)
            EACH for (int o = 0; o < outputs; o++) __builtin_prefetch(w[o] + ahead + i * bits / 8, 0, 2);
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
    EACH for (int i = 0; i < outputs * rows; i++)
        acc[i] = integers(bits) ? added(acc[i], sums[i], scales[i % rows]) : sums[i];
}

INLINE const char *row_of(const Matrix *w, long bits, long o, long at) {
    return (const char *)w->weight + (o * w->inputs + at) * bits / 8;
}

INLINE void finish(float *y, lanes sums, const Matrix *w, long o) {
    float scale = w->bits == 8 ? ((const float *)w->scales)[o] : 1;
    *y = total(sums) * scale + (w->bias ? w->bias[o] : 0);
}

// Computes the outputs first .. last of a few rows, `streams` at once.
INLINE void stream(float *y, Inputs x, const Matrix *w, long bits, long first, long last, int streams,
                   int rows) {
    long n = w->outputs, k = w->inputs, apart = (last - first + streams - 1) / streams;
    long piece = integers(bits) ? DEPTH : k;
    for (long o = first; o < first + apart; o++) {
        lanes acc[SUMS] = {0};
        for (long at = 0; at < k; at += piece) {
            const char *of[STREAMS];
            for (int s = 0; s < streams; s++) {
                long one = o + s * apart;
                of[s] = row_of(w, bits, one < last ? one : last - 1, at);
            }
            long depth = k - at < piece ? k - at : piece;
            tile(acc, x.values + at * rows, x.scales + at / DEPTH * rows, of, 0, bits, depth, streams, rows);
        }
        for (int s = 0; s < streams; s++)
            for (int m = 0; m < rows && o + s * apart < last; m++)
                finish(y + m * n + o + s * apart, acc[s * rows + m], w, o + s * apart);
    }
}

// Computes the outputs first .. last of more rows, in tiles of `size` rows: two streams, in blocks.
INLINE void blocks(float *y, Inputs x, const Matrix *w, long bits, long first, long last, long rows,
                   long size) {
    long n = w->outputs, k = w->inputs, apart = (last - first + 1) / 2;
    for (long begin = first; begin < first + apart; begin += BLOCK) {
        long count = first + apart - begin < BLOCK ? first + apart - begin : BLOCK;
        lanes acc[2 * BLOCK * ROWS];  // by tile, then pair, then output, then row
        memset(acc, 0, 2 * count * rows * sizeof(lanes));
        for (long at = 0; at < k; at += DEPTH) {
            long depth = k - at < DEPTH ? k - at : DEPTH;
            for (long m = 0; m < rows; m += size) {
                long now = rows - m < size ? rows - m : size;
                long ahead = m == 0 ? BLOCK * k * bits / 8 : 0;  // the first tile prefetches the next block
                const element *from = x.values + m * k + at * now;
                const float *scales = x.scales + at / DEPTH * rows + m;
                for (long o = begin; o < begin + count; o++) {
                    long two = o + apart < last ? o + apart : last - 1;
                    const char *of[2] = {row_of(w, bits, o, at), row_of(w, bits, two, at)};
                    lanes *sums = acc + 2 * (m * count + (o - begin) * now);
                    switch (now) {  // constants, so that the compiler keeps the sums in registers
#define TILED(many) case many: tile(sums, from, scales, of, ahead, bits, depth, 2, many); break;
                        TILED(1) TILED(2) TILED(3) TILED(4)
#if TILE > 4
                        TILED(5) TILED(6) TILED(7) TILED(8)
#endif
                    }
                }
            }
        }
        const lanes *sums = acc;
        for (long m = 0; m < rows; m += size) {
            long end = rows - m < size ? rows : m + size;
            for (long o = begin; o < begin + count; o++)
                for (long one = o; one <= o + apart; one += apart)
                    for (long row = m; row < end; row++, sums++)
                        if (one < last) finish(y + row * n + one, *sums, w, one);
        }
    }
}

// Computes the outputs first .. last, with constant row counts so that the sums stay in registers.
INLINE void multiply_share(float *y, Inputs x, const Matrix *w, long bits, long first, long last,
                           long rows, long size) {
    switch (rows) {
        case 1: stream(y, x, w, bits, first, last, STREAMS, 1); break;
        case 2: stream(y, x, w, bits, first, last, 4, 2); break;
        case 3: stream(y, x, w, bits, first, last, 3, 3); break;
#if TILE > 4
        case 4: stream(y, x, w, bits, first, last, 4, 4); break;
#endif
        default: blocks(y, x, w, bits, first, last, rows, size);
    }
}

static void float_product(float *y, const float *x, const Matrix *w, long rows) {
    long tiles = (rows + TILE - 1) / TILE, size = (rows + tiles - 1) / tiles;  // of similar size
    Inputs own = pack_inputs(x, rows, w->inputs, w->bits, size);
#pragma omp parallel
    {
        long threads = omp_get_num_threads(), thread = omp_get_thread_num();
        long first = w->outputs * thread / threads, last = w->outputs * (thread + 1) / threads;
        if (w->bits == 8) multiply_share(y, own, w, 8, first, last, rows, size);
        else multiply_share(y, own, w, 16, first, last, rows, size);
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
