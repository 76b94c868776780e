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
// 4 bits are multiplied as integers, one matrix row after the other. Inputs are rounded to 16 bits with a
// scale per group of 32, which loses less than bfloat16.
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
typedef int16_t s16 __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))
#define EACH _Pragma("GCC unroll 16")  // otherwise compilers keep arrays of vectors in memory
#define GROUP 32
#define AHEAD 4096   // prefetch distance in bytes
#define LINE 64      // bytes of a cache line
#define MOST 8       // the most rows at once with 4 bits
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
INLINE s16 load16(const int16_t *p) { s16 v; memcpy(&v, p, sizeof v); return v; }
INLINE float sum(f8 v) {
    f4 half = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
    half += __builtin_shufflevector(half, half, 2, 3, 0, 1);
    return half[0] + half[1];
}

// Force a value into a register, or into memory: compilers would reload it for each use, or shuffle.
#ifdef __AVX2__
#define KEEP(v) __asm__("" : "+v"(v))
#define STORED(v) __asm__("" : "+m"(v))
#else
#define KEEP(v)
#define STORED(v)
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
INLINE i8 from_uint8(const uint8_t *p) { return (i8)_mm256_cvtepu8_epi32(quarter(p)); }
INLINE s16 short_uint8(const uint8_t *p) { return (s16)_mm256_cvtepu8_epi16(half(p)); }
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
WIDENED(from_uint8, i8, uint8_t, 8, p[i])
WIDENED(short_uint8, s16, uint8_t, 16, p[i])
#endif

// Multiplies 16 pairs of numbers, and adds neighbouring products to 8 sums.
INLINE i8 dot_pairs(i8 sums, s16 a, s16 b) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (i8)_mm256_dpwssd_epi32((__m256i)sums, (__m256i)a, (__m256i)b);
#elif defined(__AVX2__)
    return sums + (i8)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    for (int i = 0; i < 8; i++)
        sums[i] += (int32_t)a[2 * i] * b[2 * i] + (int32_t)a[2 * i + 1] * b[2 * i + 1];
    return sums;
#endif
}

typedef struct {
    const void *weight;      // (outputs, inputs): bfloat16 (16 bits), int8 (8), or packed (4, see below)
    const void *scales;      // 8 bits: (outputs,) float; 4 bits: (outputs, inputs / 32) bfloat16
    const uint16_t *zeros;   // 4 bits: like scales; of both, 8 more values must be readable at the end
    const float *bias;       // may be null
    long bits, outputs, inputs;  // inputs is a multiple of 64
} Matrix;
// 4 bits: w = (q - 8) * scale + zero; byte i of a group has input i in its low bits, 16 + i in its high.

// --- weights of 4 bits as integers -------------------------------------------------------------

typedef struct {
    int16_t *q;     // (rows, k)
    float *scale;   // (rows, groups): x = q * scale
    float *total;   // (rows, groups): the sum of a group's rounded x
    long groups;    // k / 32, padded with zeros to a multiple of 8
} Rounded;

static Rounded round_inputs(const float *x, long rows, long k) {
    long groups = (k / GROUP + 7) & ~7L;
    Rounded r = {aligned_alloc(64, rows * k * sizeof(int16_t)), calloc(2 * rows * groups, sizeof(float)), 0, groups};
    r.total = r.scale + rows * groups;
    for (long m = 0; m < rows; m++)
        for (long g = 0; g < k / GROUP; g++) {
            const float *from = x + m * k + g * GROUP;
            int16_t *to = r.q + m * k + g * GROUP;
            i8 most_bits = {0};  // the largest magnitude: the bits of positive floats compare as integers
            for (int i = 0; i < GROUP; i += 8) {
                i8 bits = (i8)load(from + i) & 0x7fffffff, larger = bits > most_bits;
                most_bits = (bits & larger) | (most_bits & ~larger);
            }
            f8 sizes = (f8)most_bits;
            float most = 0;
            for (int i = 0; i < 8; i++) most = sizes[i] > most ? sizes[i] : most;
            float scale = most / 32767, inverse = most > 0 ? 32767 / most : 0;
            int32_t total = 0;
            for (int i = 0; i < GROUP; i++) {
                to[i] = (int16_t)lrintf(from[i] * inverse);
                total += to[i];
            }
            r.scale[m * groups + g] = scale;
            r.total[m * groups + g] = scale * total;
        }
    return r;
}

INLINE void int4_row(float *y, Rounded x, const uint8_t *w, const uint16_t *scales,
                     const uint16_t *zeros, long n, long k, int rows) {
    f8 acc[MOST][2] = {0};
    for (long g = 0; g < k / GROUP; g += 8) {
        f8 scale = from_bf16(scales + g), zero = from_bf16(zeros + g) - 8 * scale;
        float both[MOST][8];
        for (int m = 0; m < rows; m++) {
            store(both[m], scale * load(x.scale + m * x.groups + g));
            STORED(both[m]);
            acc[m][0] += zero * load(x.total + m * x.groups + g);
        }
        long count = k / GROUP - g < 8 ? k / GROUP - g : 8;
        for (long i = 0; i < count; i += 2) {
            __builtin_prefetch(w + (g + i) * 16 + AHEAD);
            for (int part = 0; part < 2; part++) {
                s16 pair = short_uint8(w + (g + i + part) * 16), low = pair & 15, high = pair >> 4;
                for (int m = 0; m < rows; m++) {
                    const int16_t *q = x.q + m * k + (g + i + part) * GROUP;
                    i8 dot = dot_pairs(dot_pairs((i8){0}, low, load16(q)), high, load16(q + 16));
                    acc[m][part] += __builtin_convertvector(dot, f8) * both[m][i + part];
                }
            }
        }
    }
    for (int m = 0; m < rows; m++) y[m * n] = sum(acc[m][0] + acc[m][1]);
}

static void int4_product(float *y, const float *x, const Matrix *w, long rows) {
    Rounded rounded = round_inputs(x, rows, w->inputs);
#pragma omp parallel for schedule(static)
    for (long o = 0; o < w->outputs; o++) {
        long n = w->outputs, k = w->inputs, groups = o * k / GROUP;
        const uint8_t *of = (const uint8_t *)w->weight + o * k / 2;
        const uint16_t *scales = (const uint16_t *)w->scales + groups, *zeros = w->zeros + groups;
        switch (rows) {  // constants, so that the compiler keeps the sums in registers
            case 1: int4_row(y + o, rounded, of, scales, zeros, n, k, 1); break;
            case 2: int4_row(y + o, rounded, of, scales, zeros, n, k, 2); break;
            case 3: int4_row(y + o, rounded, of, scales, zeros, n, k, 3); break;
            case 4: int4_row(y + o, rounded, of, scales, zeros, n, k, 4); break;
            case 5: int4_row(y + o, rounded, of, scales, zeros, n, k, 5); break;
            case 6: int4_row(y + o, rounded, of, scales, zeros, n, k, 6); break;
            case 7: int4_row(y + o, rounded, of, scales, zeros, n, k, 7); break;
            default: int4_row(y + o, rounded, of, scales, zeros, n, k, 8);
        }
        for (long m = 0; w->bias && m < rows; m++) y[m * w->outputs + o] += w->bias[o];
    }
    free(rounded.q);
    free(rounded.scale);
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
    long most = w.bits == 4 ? MOST : ROWS;
    for (long m = 0; m < rows; m += most) {
        long now = rows - m < most ? rows - m : most;
        (w.bits == 4 ? int4_product : float_product)(y + m * w.outputs, x + m * w.inputs, &w, now);
    }
}

// Dequantises a matrix of 4 bits to floats (outputs, inputs).
void widen_int4(float *wide, const uint8_t *w, const uint16_t *scales, const uint16_t *zeros, long groups) {
#pragma omp parallel for schedule(static)
    for (long g = 0; g < groups; g++) {
        float scale = from_bf16(scales + g)[0], zero = from_bf16(zeros + g)[0] - 8 * scale;
        for (int i = 0; i < 16; i += 8) {
            i8 pair = from_uint8(w + g * 16 + i);
            store(wide + g * GROUP + i, __builtin_convertvector(pair & 15, f8) * scale + zero);
            store(wide + g * GROUP + 16 + i, __builtin_convertvector(pair >> 4, f8) * scale + zero);
        }
    }
}
