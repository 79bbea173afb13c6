/* The operators of the domain "onnxprune": products with a constant sparse matrix, in onnxruntime.
 *
 * SparseMatMul (X, W), SparseMatMulBias (X, W, B), SparseMatMulBiasRelu, and the same with Gemm for MatMul, whose
 * attribute transB says that W is (outputs, inputs). W is packed when the kernel is made, which reads W and its
 * shape from onnxruntime alone. A kernel is never written to afterwards: any number of runs may go on at once, each
 * with scratch memory of its own, from onnxruntime's allocator, on onnxruntime's threads. */
#include <stdlib.h>
#include <string.h>

#include "ort_api.h"
#include "sparse.h"

typedef struct {
    OrtCustomOp callbacks;
    const char *title;
    size_t inputs;
    int gemm, relu;
} operator;

typedef struct {
    const OrtApi *api;
    OrtAllocator *allocator;
    const kernel_set *run;
    sparse_matrix *matrix;
    float *bias;
    int relu;
} kernel;

enum { MOST_AXES = 32, ENOUGH = 8, FEWEST = 16, MOST = 64, SCRATCH = 1 << 22 };

#define TRY(call)                   \
    do {                            \
        OrtStatus *wrong_ = (call); \
        if (wrong_)                 \
            return wrong_;          \
    } while (0)

/* ---- what onnxruntime says of tensors ---------------------------------------------------------- */

typedef struct {
    int64_t sizes[MOST_AXES];
    size_t rank;
    float *data;
} tensor;

static OrtStatus *shape_of(const OrtApi *api, const OrtValue *value, tensor *t) {
    OrtShape *shape;
    int type = 0;
    OrtStatus *wrong;
    TRY(ORT_SHAPE_OF(api)(value, &shape));
    wrong = ORT_ELEMENT_TYPE(api)(shape, &type);
    if (!wrong)
        wrong = ORT_RANK(api)(shape, &t->rank);
    if (!wrong && (type != FLOAT32 || t->rank > MOST_AXES))
        wrong = ORT_CREATE_STATUS(api)(INVALID_ARGUMENT, "onnxprune: expected float32 of up to 32 axes");
    if (!wrong)
        wrong = ORT_SIZES(api)(shape, t->sizes, t->rank);
    ORT_RELEASE_SHAPE(api)(shape);
    return wrong;
}

static OrtStatus *read_tensor(const OrtApi *api, const OrtValue *value, tensor *t) {
    void *data = NULL;
    TRY(shape_of(api, value, t));
    TRY(ORT_TENSOR_DATA(api)((OrtValue *)value, &data));
    t->data = data;
    return NULL;
}

static OrtStatus *constant(const OrtApi *api, const OrtKernelInfo *info, size_t input, tensor *t) {
    const OrtValue *value = NULL;
    int is_constant = 0;
    TRY(ORT_CONSTANT_INPUT(api)(info, input, &is_constant, &value));
    if (!is_constant || !value)
        return ORT_CREATE_STATUS(api)(INVALID_GRAPH, "onnxprune: weights and biases must be constants");
    return read_tensor(api, value, t);
}

/* ---- making a kernel --------------------------------------------------------------------------- */

static void destroy(void *pointer) {
    kernel *k = pointer;
    if (!k)
        return;
    if (k->allocator)
        ORT_RELEASE_ALLOCATOR(k->api)(k->allocator);
    sparse_free(k->matrix);
    free(k->bias);
    free(k);
}

static OrtStatus *take_bias(kernel *k, const OrtKernelInfo *info) {
    tensor b;
    int64_t count = 1;
    TRY(constant(k->api, info, 2, &b));
    for (size_t i = 0; i < b.rank; i++)
        count *= b.sizes[i];
    if (count != k->matrix->rows || !b.rank || b.sizes[b.rank - 1] != count)
        return ORT_CREATE_STATUS(k->api)(INVALID_GRAPH, "onnxprune: a bias needs one value for each output");
    k->bias = malloc((size_t)count * sizeof *k->bias + 1);
    if (!k->bias)
        return ORT_CREATE_STATUS(k->api)(FAIL, "onnxprune: out of memory");
    memcpy(k->bias, b.data, (size_t)count * sizeof *k->bias);
    return NULL;
}

static OrtStatus *take_weights(kernel *k, const operator *op, const OrtKernelInfo *info) {
    tensor w;
    int64_t by_outputs = 0;
    TRY(constant(k->api, info, 1, &w));
    if (op->gemm) {
        OrtStatus *missing = ORT_ATTRIBUTE_INT(k->api)(info, "transB", &by_outputs);
        if (missing)
            ORT_RELEASE_STATUS(k->api)(missing);
    }
    if (w.rank != 2 || w.sizes[0] > INT32_MAX || w.sizes[1] > INT32_MAX)
        return ORT_CREATE_STATUS(k->api)(INVALID_GRAPH, "onnxprune: weights must be a matrix");
    k->matrix = by_outputs ? sparse_pack(w.data, w.sizes[0], w.sizes[1], w.sizes[1], 1)
                           : sparse_pack(w.data, w.sizes[1], w.sizes[0], 1, w.sizes[1]);
    return k->matrix ? NULL : ORT_CREATE_STATUS(k->api)(FAIL, "onnxprune: out of memory");
}

static OrtStatus *create(const OrtCustomOp *callbacks, const OrtApi *api, const OrtKernelInfo *info,
                         void **made) {
    const operator *op = (const operator *)callbacks;
    kernel *k = calloc(1, sizeof *k);
    OrtStatus *wrong;
    if (!k)
        return ORT_CREATE_STATUS(api)(FAIL, "onnxprune: out of memory");
    k->api = api, k->run = choose_kernels(), k->relu = op->relu;
    wrong = ORT_INFO_ALLOCATOR(api)(info, 0, &k->allocator);
    if (!wrong)
        wrong = take_weights(k, op, info);
    if (!wrong && op->inputs == 3)
        wrong = take_bias(k, info);
    if (wrong)
        destroy(k);
    else
        *made = k;
    return wrong;
}

/* ---- running it -------------------------------------------------------------------------------- */

typedef struct {
    const kernel *k;
    const float *inputs;
    float *outputs;
    int64_t count;     /* inputs */
    int width;         /* of a tile */
    size_t tiles;
    size_t groups;     /* into which blocks of rows are dealt */
    size_t tile_floats;
    float *turned;     /* all tiles, where groups share them */
    float *scratch;    /* a piece for each task */
    size_t piece;      /* floats of a piece */
} job;

static int inputs_in(const job *j, size_t tile) {
    int64_t left = j->count - (int64_t)tile * j->width;
    return (int)(left < j->width ? left : j->width);
}

static void turn_tile(const job *j, size_t tile, float *to) {
    const int64_t columns = j->k->matrix->columns;
    j->k->run->turn(j->inputs + (int64_t)tile * j->width * columns, columns, inputs_in(j, tile), j->width, to);
}

static void turn_task(void *user, size_t tile) {
    const job *j = user;
    turn_tile(j, tile, j->turned + tile * j->tile_floats);
}

static void multiply_task(void *user, size_t task) {
    const job *j = user;
    const sparse_matrix *m = j->k->matrix;
    const size_t tile = task / j->groups, group = task % j->groups;
    float *work = j->scratch + task * j->piece, *turned;
    const int begin = (int)(m->row_blocks * group / j->groups);
    const int end = (int)(m->row_blocks * (group + 1) / j->groups);
    if (j->turned) {
        turned = j->turned + tile * j->tile_floats;
    } else {
        turned = work + (size_t)m->row_block * j->width;
        turn_tile(j, tile, turned);
    }
    for (int block = begin; block < end; block++)
        j->k->run->multiply(m, block, j->width, inputs_in(j, tile), turned, work, j->k->bias, j->k->relu,
                            j->outputs + (int64_t)tile * j->width * m->rows + (int64_t)block * m->row_block,
                            m->rows);
}

static void multiply_one_task(void *user, size_t block) {
    const job *j = user;
    const sparse_matrix *m = j->k->matrix;
    j->k->run->multiply_one(m, (int)block, j->inputs, j->k->bias, j->k->relu,
                            j->outputs + block * m->row_block);
}

/* For how many tasks there is scratch memory; the tiles of a large batch come in turns. */
static size_t tasks_at_once(const job *j) {
    size_t most = SCRATCH / j->piece;
    most = most < FEWEST ? FEWEST : most > MOST ? MOST : most;
    return j->tiles < most ? j->tiles : most;
}

/* Tiles one after the other where there are many, so that each stays in cache; few tiles are turned first and then
 * shared by groups of rows, so that several threads have work. */
static OrtStatus *multiply_tiles(job *j, OrtKernelContext *context) {
    const OrtApi *api = j->k->api;
    const sparse_matrix *m = j->k->matrix;
    OrtStatus *wrong = NULL;
    void *memory = NULL;
    size_t shared, at_once;
    j->width = j->k->run->width(j->count);
    j->tiles = (size_t)((j->count + j->width - 1) / j->width);
    j->groups = 1;
    while (j->tiles * j->groups < ENOUGH && j->groups * 2 <= (size_t)m->row_blocks)
        j->groups *= 2;
    j->tile_floats = (size_t)m->column_blocks * K_BLOCK * j->width;
    shared = j->groups > 1 ? j->tiles * j->tile_floats : 0;
    j->piece = (size_t)m->row_block * j->width + (shared ? 0 : j->tile_floats);
    at_once = shared ? j->tiles * j->groups : tasks_at_once(j);
    TRY(ORT_ALLOC(api)(j->k->allocator, (shared + at_once * j->piece) * sizeof(float) + 64, &memory));
    j->scratch = (float *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    if (shared) {
        j->turned = j->scratch;
        j->scratch += shared;
        wrong = ORT_PARALLEL_FOR(api)(context, turn_task, j->tiles, 0, j);
        if (!wrong)
            wrong = ORT_PARALLEL_FOR(api)(context, multiply_task, j->tiles * j->groups, 0, j);
    } else {
        const size_t tiles = j->tiles;
        const float *inputs = j->inputs;
        float *outputs = j->outputs;
        const int64_t count = j->count;
        for (size_t done = 0; done < tiles && !wrong; done += at_once) {
            const int64_t skipped = (int64_t)done * j->width;
            const size_t now = tiles - done < at_once ? tiles - done : at_once;
            j->inputs = inputs + skipped * m->columns;
            j->outputs = outputs + skipped * m->rows;
            j->count = count - skipped;
            wrong = ORT_PARALLEL_FOR(api)(context, multiply_task, now, 0, j);
        }
    }
    if (wrong) {
        OrtStatus *also = ORT_FREE(api)(j->k->allocator, memory);
        if (also)
            ORT_RELEASE_STATUS(api)(also);
        return wrong;
    }
    return ORT_FREE(api)(j->k->allocator, memory);
}

static OrtStatus *compute(void *pointer, OrtKernelContext *context) {
    const kernel *k = pointer;
    const OrtApi *api = k->api;
    const OrtValue *value = NULL;
    OrtValue *made = NULL;
    tensor x;
    void *outputs = NULL;
    job j = {.k = k, .count = 1};
    TRY(ORT_INPUT(api)(context, 0, &value));
    TRY(read_tensor(api, value, &x));
    if (!x.rank || x.sizes[x.rank - 1] != k->matrix->columns)
        return ORT_CREATE_STATUS(api)(INVALID_ARGUMENT, "onnxprune: the last axis of X must be that of the weights");
    for (size_t i = 0; i + 1 < x.rank; i++)
        j.count *= x.sizes[i];
    x.sizes[x.rank - 1] = k->matrix->rows;
    TRY(ORT_OUTPUT(api)(context, 0, x.sizes, x.rank, &made));
    TRY(ORT_TENSOR_DATA(api)(made, &outputs));
    if (!j.count || !k->matrix->rows)
        return NULL;
    j.inputs = x.data, j.outputs = outputs;
    if (j.count == 1)
        return ORT_PARALLEL_FOR(api)(context, multiply_one_task, (size_t)k->matrix->row_blocks, 0, &j);
    return multiply_tiles(&j, context);
}

/* ---- what onnxruntime asks of an operator ------------------------------------------------------ */

static const char *name_of(const OrtCustomOp *op) { return ((const operator *)op)->title; }
static const char *any_provider(const OrtCustomOp *op) { return (void)op, NULL; }
static int is_float(const OrtCustomOp *op, size_t place) { return (void)op, (void)place, FLOAT32; }
static int required(const OrtCustomOp *op, size_t place) { return (void)op, (void)place, 0; }
static size_t inputs_of(const OrtCustomOp *op) { return ((const operator *)op)->inputs; }
static size_t one_output(const OrtCustomOp *op) { return (void)op, 1; }
static int one(const OrtCustomOp *op) { return (void)op, 1; }
static int any_version(const OrtCustomOp *op) { return (void)op, INT32_MAX; }

#define OPERATOR(TITLE, INPUTS, GEMM, RELU)                                                                    \
    {{.version = API_LEVEL,                                                                                    \
      .name = name_of,                                                                                         \
      .provider = any_provider,                                                                                \
      .input_type = is_float,                                                                                  \
      .inputs = inputs_of,                                                                                     \
      .output_type = is_float,                                                                                 \
      .outputs = one_output,                                                                                   \
      .destroy = destroy,                                                                                      \
      .input_characteristic = required,                                                                        \
      .output_characteristic = required,                                                                       \
      .input_memory = required,                                                                                \
      .variadic = {one, one, one, one},                                                                        \
      .create_kernel_v2 = create,                                                                              \
      .compute_v2 = compute,                                                                                   \
      .first_version = one,                                                                                    \
      .last_version = any_version},                                                                            \
     TITLE, INPUTS, GEMM, RELU}

static const operator OPERATORS[] = {
    OPERATOR("SparseMatMul", 2, 0, 0),         OPERATOR("SparseMatMulBias", 3, 0, 0),
    OPERATOR("SparseMatMulBiasRelu", 3, 0, 1), OPERATOR("SparseGemm", 2, 1, 0),
    OPERATOR("SparseGemmBias", 3, 1, 0),       OPERATOR("SparseGemmBiasRelu", 3, 1, 1),
};

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);

OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const OrtApi *api = base->get_api(API_LEVEL);
    OrtCustomOpDomain *domain = NULL;
    if (!api) /* too old: nothing to say so with, and the functions of the model serve */
        return NULL;
    TRY(ORT_CREATE_DOMAIN(api)("onnxprune", &domain));
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++)
        TRY(ORT_DOMAIN_ADD(api)(domain, &OPERATORS[i].callbacks));
    return ORT_ADD_DOMAIN(api)(options, domain);
}
