// Products of a few rows of float32 with matrices in 32, 16, 8 or 4 bits.
//
// One or two rows: memory is what limits. A matrix is read row by row in one stream, the next 4 KB
// asked for ahead, because the processor's own prefetcher stops at the end of a page. Narrow weights
// multiply in integers: an input is rounded to 16 bits within its group of 32, which loses less than
// bfloat16 would.
//
// More rows: arithmetic is what limits. Six outputs at a time, each weight is widened in a register and
// multiplied there in tiles of 3 outputs and 4 rows, piece by piece, so that the inputs stay in the
// nearest cache. What comes next is asked for ahead throughout, a share in every tile: asked for in the
// first one alone, memory would rest while the others compute. Weights of 4 bits stay with integers,
// which is faster for them.

#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef float f8 __attribute__((vector_size(32)));
typedef float f4 __attribute__((vector_size(16)));
typedef uint32_t u8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef int16_t s16 __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))
#define EACH _Pragma("GCC unroll 4")  // else compilers keep arrays of registers in memory
#define GROUP 32
#define AHEAD 4096   // bytes
#define FEW 2        // rows that are multiplied in one stream,
#define MOST 8       // and those that are by weights of 4 bits
#define ROWS 16      // of a panel at once; more are taken in turns
#define PANEL 3      // outputs
#define PANELS 2     // of them for one piece
#define TILE 4       // rows
#define DEPTH 512    // inputs of a piece

INLINE f8 load(const float *p) { f8 v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(float *p, f8 v) { memcpy(p, &v, sizeof v); }
INLINE s16 load16(const int16_t *p) { s16 v; memcpy(&v, p, sizeof v); return v; }
INLINE float sum(f8 v) {
    f4 half = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
    half += __builtin_shufflevector(half, half, 2, 3, 0, 1);
    return half[0] + half[1];
}

// Has a value loaded once, and stored: compilers read memory for each use, or shuffle registers.
#ifdef __AVX2__
#define KEEP(v) __asm__("" : "+x"(v))
#define STORED(v) __asm__("" : "+m"(v))
#else
#define KEEP(v)
#define STORED(v)
#endif

// Numbers widened as they are loaded. Compilers make five instructions of what is one.
#ifdef __AVX2__
// Loaded by itself: with the load within the conversion, memory is read a tenth slower.
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
INLINE s16 short_int8(const int8_t *p) { return (s16)_mm256_cvtepi8_epi16(half(p)); }
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
WIDENED(short_int8, s16, int8_t, 16, p[i])
WIDENED(short_uint8, s16, uint8_t, 16, p[i])
#endif

// Sums of products of neighbours: 16 numbers to 8.
INLINE i8 dot_pairs(s16 a, s16 b) {
#ifdef __AVX2__
    return (i8)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    i8 out;
    for (int i = 0; i < 8; i++)
        out[i] = (int32_t)a[2 * i] * b[2 * i] + (int32_t)a[2 * i + 1] * b[2 * i + 1];
    return out;
#endif
}

typedef struct {
    const void *weight;      // (outputs, inputs) by bits: 16 bfloat16, 8 int8, 4: see below
    const void *scales;      // of 8 bits: (outputs,) float; of 4 bits: (outputs, inputs / 32)
    const uint16_t *zeros;   // bfloat16, which both may be read 8 past their end
    const float *bias;       // null: none
    long bits, outputs, inputs;  // inputs are a multiple of 64
} Matrix;
// 4 bits: byte i of a group holds input i below and input 16 + i above. w = (q - 8) * scale + zero.

// --- one stream --------------------------------------------------------------------------------

// A sum waits for itself: several are kept, so that none is waited for.
INLINE void bf16_row(float *y, const float *x, const uint16_t *w, long n, long k, int rows) {
    f8 acc[FEW][4] = {0};
    for (long i = 0; i < k; i += 32) {
        __builtin_prefetch((const char *)(w + i) + AHEAD);
        for (int part = 0; part < 4; part++) {
            long at = i + 8 * part;
            f8 weight = from_bf16(w + at);
            for (int m = 0; m < rows; m++) acc[m][part] += weight * load(x + m * k + at);
        }
    }
    for (int m = 0; m < rows; m++) y[m * n] = sum((acc[m][0] + acc[m][1]) + (acc[m][2] + acc[m][3]));
}

typedef struct {
    int16_t *q;     // (rows, k)
    float *scale;   // (rows, groups): x = q * scale
    float *total;   // (rows, groups): the sum of a group's x, as rounded
    long groups;    // k / 32, rounded up to a multiple of 8; what is beyond is zero
} Rounded;

static Rounded round_inputs(const float *x, long rows, long k) {
    long groups = (k / GROUP + 7) & ~7L;
    Rounded r = {aligned_alloc(64, rows * k * sizeof(int16_t)), calloc(2 * rows * groups, sizeof(float)), 0, groups};
    r.total = r.scale + rows * groups;
    for (long m = 0; m < rows; m++)
        for (long g = 0; g < k / GROUP; g++) {
            const float *from = x + m * k + g * GROUP;
            int16_t *to = r.q + m * k + g * GROUP;
            i8 most_bits = {0};  // of positive floats, which compare as integers do
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

INLINE void int8_row(float *y, Rounded x, const int8_t *w, float scale, long n, long k, int rows) {
    f8 acc[FEW][2] = {0};
    for (long g = 0; g < k / GROUP; g += 2) {
        __builtin_prefetch(w + g * GROUP + AHEAD);
        for (int part = 0; part < 2; part++) {
            s16 a = short_int8(w + (g + part) * GROUP), b = short_int8(w + (g + part) * GROUP + 16);
            for (int m = 0; m < rows; m++) {
                const int16_t *q = x.q + m * k + (g + part) * GROUP;
                i8 dot = dot_pairs(a, load16(q)) + dot_pairs(b, load16(q + 16));
                acc[m][part] += __builtin_convertvector(dot, f8) * x.scale[m * x.groups + g + part];
            }
        }
    }
    for (int m = 0; m < rows; m++) y[m * n] = sum(acc[m][0] + acc[m][1]) * scale;
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
                    i8 dot = dot_pairs(low, load16(q)) + dot_pairs(high, load16(q + 16));
                    acc[m][part] += __builtin_convertvector(dot, f8) * both[m][i + part];
                }
            }
        }
    }
    for (int m = 0; m < rows; m++) y[m * n] = sum(acc[m][0] + acc[m][1]);
}

INLINE void stream_row(float *y, const float *x, Rounded rounded, const Matrix *w, long o, int rows) {
    long n = w->outputs, k = w->inputs, groups = k / GROUP;
    if (w->bits == 4)
        int4_row(y, rounded, (const uint8_t *)w->weight + o * k / 2,
                 (const uint16_t *)w->scales + o * groups, w->zeros + o * groups, n, k, rows);
    else if (rows > FEW) __builtin_unreachable();
    else if (w->bits == 16) bf16_row(y, x, (const uint16_t *)w->weight + o * k, n, k, rows);
    else int8_row(y, rounded, (const int8_t *)w->weight + o * k, ((const float *)w->scales)[o], n, k, rows);
}

static void stream(float *y, const float *x, const Matrix *w, long rows) {
    Rounded rounded = {0};
    if (w->bits <= 8) rounded = round_inputs(x, rows, w->inputs);
#pragma omp parallel for schedule(static)
    for (long o = 0; o < w->outputs; o++) {
        // A constant in each branch, so that the sums of the rows stay in registers.
        switch (rows) {
            case 1: stream_row(y + o, x, rounded, w, o, 1); break;
            case 2: stream_row(y + o, x, rounded, w, o, 2); break;
            case 3: stream_row(y + o, x, rounded, w, o, 3); break;
            case 4: stream_row(y + o, x, rounded, w, o, 4); break;
            case 5: stream_row(y + o, x, rounded, w, o, 5); break;
            case 6: stream_row(y + o, x, rounded, w, o, 6); break;
            case 7: stream_row(y + o, x, rounded, w, o, 7); break;
            default: stream_row(y + o, x, rounded, w, o, 8);
        }
        for (long m = 0; w->bias && m < rows; m++) y[m * w->outputs + o] += w->bias[o];
    }
    free(rounded.q);
    free(rounded.scale);
}

// --- panels ------------------------------------------------------------------------------------

// Eight of the 16 inputs of an output from i on as floats; 8 bits without their scale. Of bfloat16 the
// even ones are the first: two share a lane, and come apart without a shuffle.
INLINE f8 eight(const char *w, long bits, long i, int second) {
    if (bits == 8) return __builtin_convertvector(from_int8((const int8_t *)w + i + 8 * second), f8);
    u8 both;
    memcpy(&both, w + 2 * i, sizeof both);
    return (f8)(second ? both >> 16 << 16 : both << 16);
}

// Inputs in the order in which ``eight`` has weights of bfloat16.
static float *reordered(const float *x, long count) {
    float *y = aligned_alloc(64, count * sizeof(float));
    for (long i = 0; i < count; i += 16) {
        f8 a = load(x + i), b = load(x + i + 8);
        store(y + i, __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14));
        store(y + i + 8, __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15));
    }
    return y;
}

INLINE void half_step(f8 (*sums)[PANEL], const float *x, long k, const char *const *w, long bits, long i,
                      int second, int rows) {
    f8 weight[PANEL];
    EACH for (int p = 0; p < PANEL; p++) {
        f8 v = eight(w[p], bits, i, second);
        KEEP(v);
        weight[p] = v;
    }
    EACH for (int m = 0; m < rows; m++) {
        f8 input = load(x + m * k + i + 8 * second);
        KEEP(input);
        EACH for (int p = 0; p < PANEL; p++) sums[m][p] += weight[p] * input;
    }
}

// Adds to acc (rows, PANEL) what `count` inputs give; of what lies `ahead` bytes on, asks for 1 / `tiles`.
INLINE void tile(f8 (*acc)[PANEL], const float *x, long k, const char *const *w, long bits, long count,
                 long ahead, long tiles, int rows) {
    f8 sums[TILE][PANEL];
    EACH for (int m = 0; m < rows; m++)
        EACH for (int p = 0; p < PANEL; p++) sums[m][p] = acc[m][p];
    for (long i = 0; i < count; i += GROUP) {
        EACH for (int p = 0; p < PANEL; p++) __builtin_prefetch(w[p] + ahead);
        ahead += GROUP * bits / 8 / tiles;
#pragma GCC unroll 1
        for (long j = i; j < i + GROUP; j += 16) {
            half_step(sums, x, k, w, bits, j, 0, rows);
            half_step(sums, x, k, w, bits, j, 1, rows);
        }
    }
    EACH for (int m = 0; m < rows; m++)
        EACH for (int p = 0; p < PANEL; p++) acc[m][p] = sums[m][p];
}

// The outputs first .. first + PANELS * PANEL of `rows` rows.
INLINE void panel(float *y, const float *x, const Matrix *w, long bits, long first, long rows) {
    long n = w->outputs, k = w->inputs;
    f8 acc[PANELS][ROWS][PANEL] = {0};
    long tiles = (rows + TILE - 1) / TILE, size = (rows + tiles - 1) / tiles;  // tiles alike
    for (long at = 0; at < k; at += DEPTH) {
        long count = k - at < DEPTH ? k - at : DEPTH;
        for (int s = 0; s < PANELS; s++) {
            const char *of[PANEL];
            for (long p = 0; p < PANEL; p++) {
                long o = first + s * PANEL + p;
                of[p] = (const char *)w->weight + ((o < n ? o : n - 1) * k + at) * bits / 8;
            }
            for (long m = 0; m < rows; m += size) {
                const float *from = x + m * k + at;
                long ahead = (PANELS * PANEL * k + m / size * count / tiles) * bits / 8;
                f8 (*sums)[PANEL] = acc[s] + m;
                switch (rows - m < size ? rows - m : size) {
                    case 1: tile(sums, from, k, of, bits, count, ahead, tiles, 1); break;
                    case 2: tile(sums, from, k, of, bits, count, ahead, tiles, 2); break;
                    case 3: tile(sums, from, k, of, bits, count, ahead, tiles, 3); break;
                    default: tile(sums, from, k, of, bits, count, ahead, tiles, 4);
                }
            }
        }
    }
    for (long j = 0; j < PANELS * PANEL && first + j < n; j++) {
        float scale = bits == 8 ? ((const float *)w->scales)[first + j] : 1;
        float bias = w->bias ? w->bias[first + j] : 0;
        for (long m = 0; m < rows; m++) y[m * n + first + j] = sum(acc[j / PANEL][m][j % PANEL]) * scale + bias;
    }
}

static void panels(float *y, const float *x, const Matrix *w, long rows) {
    float *own = w->bits == 16 ? reordered(x, rows * w->inputs) : 0;
    if (own) x = own;
#pragma omp parallel for schedule(static)
    for (long o = 0; o < w->outputs; o += PANELS * PANEL)
        if (w->bits == 16) panel(y, x, w, 16, o, rows);
        else panel(y, x, w, 8, o, rows);
    free(own);
}

// y (rows, outputs) = x (rows, inputs) times the matrix transposed, plus bias.
void linear(float *y, const float *x, const Matrix *matrix, long rows) {
    const Matrix w = *matrix;
    long most = w.bits == 4 ? MOST : rows <= FEW ? FEW : ROWS;
    for (long m = 0; m < rows; m += most) {
        long now = rows - m < most ? rows - m : most;
        (w.bits == 4 || rows <= FEW ? stream : panels)(y + m * w.outputs, x + m * w.inputs, &w, now);
    }
}

// A matrix of 4 bits as floats (outputs, inputs).
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
